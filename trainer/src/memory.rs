//! How many blocks keep what their backward pass needs, so that it fits a budget.
//!
//! The choice never changes a bit of the result: a block that is computed again gives the same values.

use std::collections::HashMap;

use seedcorn_adapters::lora::PlannedModule;
use seedcorn_kernels::gated_mlp;

use crate::build::precision;
use crate::error::Explained;
use crate::model::{ModelSpec, Precision, Slice};
use crate::recipe::{Activation, Recipe};

/// Share of the free memory that is taken without `train.memory_budget`, once the weights are in. The rest is for
/// what a block needs while it is computed, the optimizer, evaluation, and the page cache.
const SHARE: f64 = 0.6;

/// What is kept between the forward and the backward pass of a micro-batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The last blocks, of which everything is kept; the backward pass needs them first.
    pub kept_blocks: usize,
    /// Tokens of the largest micro-batch.
    pub tokens: usize,
    /// Bytes that all blocks keep then.
    pub bytes: u64,
    /// The most bytes that they may keep, where a budget decided.
    pub budget: Option<u64>,
}

/// Decides for a recipe; the pair is the tokens of the longest sample and of all, `frozen` the bytes of the frozen
/// weights, and `available` the memory that is free before they are read, where that is known.
///
/// # Errors
/// With `train.activation = "auto"` and no budget, where it is not known how much memory is free.
pub fn plan(
    recipe: &Recipe,
    spec: &ModelSpec,
    adapted: &[PlannedModule],
    [longest, all]: [usize; 2],
    frozen: u64,
    available: Option<u64>,
) -> Result<Plan, Explained> {
    let precision = precision(&recipe.model);
    // An epoch's packs hold all samples once.
    let length = if recipe.data.packing { all.min(recipe.data.max_length as usize) } else { longest };
    let tokens = length.saturating_mul(recipe.train.micro_batch as usize);
    let layers = spec.num_layers;
    let spec = &widest(spec, recipe);
    let blocks = block_bytes(spec, adapted, tokens, precision, recipe.adapter.dropout > 0.0);
    let bytes = |kept: usize| {
        let (again, kept) = blocks.split_at(layers - kept);
        let all = again.iter().map(|block| block.again).chain(kept.iter().map(|block| block.kept));
        all.fold(0, u64::saturating_add)
    };
    let budget = match (recipe.train.activation, recipe.train.memory_budget) {
        (Activation::Auto, Some(budget)) => Some(budget),
        (Activation::Auto, None) => {
            // Of weights in parts, this machine holds those of its ranks.
            let here = match recipe.parallel.parts() {
                1 => frozen,
                parts => frozen / parts * recipe.parallel.on_this_machine,
            };
            Some(default_budget(here, available)? / recipe.parallel.on_this_machine)
        }
        _ => None,
    };
    let kept_blocks = match (recipe.train.activation, budget) {
        (Activation::Keep, _) => layers,
        (_, Some(budget)) => (0..=layers).rev().find(|&kept| bytes(kept) <= budget).unwrap_or(0),
        _ => 0,
    };
    Ok(Plan { kept_blocks, tokens, bytes: bytes(kept_blocks), budget })
}

/// Returns the widths that one rank computes with.
pub(crate) fn widest(spec: &ModelSpec, recipe: &Recipe) -> ModelSpec {
    let of = recipe.parallel.tensor as usize;
    Slice { index: of - 1, of }.spec(spec)
}

/// Bytes of one block between the forward and the backward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockBytes {
    /// Where it is computed again.
    pub(crate) again: u64,
    /// Where its graphs are kept.
    pub(crate) kept: u64,
}

/// Estimates what each block keeps.
///
/// Computed again, in f32 for each token: the input, and with the fused feed-forward kernel that half's graph.
/// Kept: the input and its norm, queries, keys and values (once more where heads are normed),
/// the heads and their log-sum-exp, the input of the feed-forward half, and every adapter's low-rank product. Where
/// that half is not the fused kernel: its normed input, gate, up, and what goes into the down projection.
pub(crate) fn block_bytes(
    spec: &ModelSpec,
    adapted: &[PlannedModule],
    tokens: usize,
    precision: Precision,
    dropout: bool,
) -> Vec<BlockBytes> {
    /// Gate, up and down stand last in a block.
    const FEED_FORWARD: usize = 3;
    let (d, f, heads) = (spec.hidden_size, spec.intermediate_size, spec.heads);
    let fused = gated_mlp::is_fused(tokens, [d, f], precision.compute) && !dropout && !spec.mlp_bias;
    let qkv = (heads.q_size() + 2 * heads.kv_size()) * if spec.qk_norm { 2 } else { 1 };
    let feed_forward = if fused { d } else { 2 * d + 3 * f };
    let width = 2 * d + qkv + heads.q_size() + heads.num_heads + feed_forward;
    let ranks: HashMap<&str, usize> =
        adapted.iter().map(|one| (one.module.name.as_str(), one.rank)).collect();
    let modules = spec.linear_modules();
    // The output head stands last, after the same number of layers in every block.
    modules[..modules.len() - 1]
        .chunks_exact(modules.len() / spec.num_layers)
        .map(|block| {
            let of = |modules: &[seedcorn_adapters::target::LinearModule]| {
                modules.iter().filter_map(|module| ranks.get(module.name.as_str())).sum::<usize>()
            };
            let half = if fused { d + of(&block[block.len() - FEED_FORWARD..]) } else { 0 };
            let floats = |width: usize| (4 * width as u64).saturating_mul(tokens as u64);
            BlockBytes { again: floats(d + half), kept: floats(width + of(block)) }
        })
        .collect()
}

fn default_budget(frozen: u64, available: Option<u64>) -> Result<u64, Explained> {
    let available = available.ok_or_else(|| {
        Explained::usage("this system does not say how much memory is free")
            .with_hint("set `train.memory_budget`, like `4 GiB`")
    })?;
    Ok((available.saturating_sub(frozen) as f64 * SHARE) as u64)
}
