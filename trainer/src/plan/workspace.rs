//! What a micro-batch takes for a moment beside what is kept: a block in its backward pass, the head with the loss.
//!
//! The sizes follow the kernels; each names the file that allocates. Counted in f32 values of a token unless said
//! otherwise. Freed memory stays with the process and is used again, so the larger of block and head counts, and
//! beside it what the matrix unit's operands are packed into (`matmul/cpu/scratch.rs`), which is kept apart.

use seedcorn_kernels::frozen::Compute;
use seedcorn_kernels::gated_mlp;
use seedcorn_kernels::isa::{self, Tier};

use super::Subject;
use crate::build::precision;
use crate::memory::{BlockBytes, block_bytes, widest};

/// The most bytes of packed columns that a thread keeps (`matmul/cpu/product.rs`).
const PANEL_BYTES: u64 = 512 << 10;
/// Tokens of a group whose share of the fused half's gradients is a sum of its own (`gated_mlp/fused/backward.rs`).
const GROUP: u64 = 256;
/// Queries of a task of attention's backward pass on tiles (`attention/tiles/backward.rs`).
const CHUNK: u64 = 512;

/// Copies of the residual stream that are there while slices are added up (`parallel/tensor.rs`).
const SUM_COPIES: u64 = 3;

/// Bytes of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Workspace {
    /// A block in its backward pass; where it is computed again, with its graph.
    pub(super) block: u64,
    /// The last norm, the head and the loss.
    pub(super) head: u64,
    /// Packed operands of the matrix unit.
    pub(super) packed: u64,
    /// A block and the head without gradients, for the batches of an evaluation.
    pub(super) forward: u64,
    /// What slices of a model send each other for a sum: the addend, those of the others, and the finished parts.
    pub(super) sums: u64,
}

/// How operands of products are prepared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// bf16 tiles, packed.
    Tiles,
    /// bf16 in f32 vectors: a rounded copy.
    Rounded,
    /// f32, where it is.
    Plain,
}

impl Unit {
    fn new(compute: Compute) -> Self {
        match compute {
            Compute::F32 => Self::Plain,
            Compute::Bf16 if isa::tier() == Tier::Amx => Self::Tiles,
            Compute::Bf16 => Self::Rounded,
        }
    }

    /// Bytes of a value of a prepared left operand.
    fn left(self) -> u64 {
        match self {
            Self::Tiles => 2,
            Self::Rounded => 4,
            Self::Plain => 0,
        }
    }
}

/// Widths of a model, in values.
struct Widths {
    d: u64,
    f: u64,
    q: u64,
    kv: u64,
    heads: u64,
    /// Sum of the ranks of the low-rank products of the widest group.
    rank: u64,
}

impl Workspace {
    /// Adds up for a rank with so many threads.
    pub(super) fn new(subject: &Subject, threads: u64) -> Self {
        let (spec, recipe) = (&widest(&subject.spec, &subject.recipe), &subject.recipe);
        let compute = precision(&recipe.model).compute;
        let (unit, dropout) = (Unit::new(compute), recipe.adapter.dropout > 0.0);
        let widths = Widths {
            d: spec.hidden_size as u64,
            f: spec.intermediate_size as u64,
            q: spec.heads.q_size() as u64,
            kv: spec.heads.kv_size() as u64,
            heads: spec.heads.num_heads as u64,
            rank: subject.adapted.iter().map(|one| one.rank as u64).max().unwrap_or(0),
        };
        let tokens = subject.activations.tokens;
        let shape = [spec.hidden_size, spec.intermediate_size];
        let fused = gated_mlp::is_fused(tokens, shape, compute) && !dropout && !spec.mlp_bias;
        let t = tokens as u64;
        let again = if subject.activations.kept_blocks < spec.num_layers {
            let blocks = block_bytes(spec, &subject.adapted, tokens, precision(&recipe.model), dropout);
            blocks.first().map_or(0, |BlockBytes { again, kept }| kept.saturating_sub(*again))
        } else {
            0
        };
        let half =
            if fused { fused_half(&widths, t) } else { plain_half(&widths, unit, dropout).saturating_mul(t) };
        let chunks = (subject.lengths[0] as u64).div_ceil(CHUNK).max(1);
        let attention = attention_half(&widths, unit, chunks, dropout).saturating_mul(t);
        let evaluated = subject.evaluation[0] as u64;
        Self {
            block: again.saturating_add(half.max(attention)),
            head: head(&widths, unit, true, t),
            packed: packed(&widths, unit, fused, t).saturating_add(threads * of_thread(&widths)),
            forward: forward(&widths, fused)
                .saturating_mul(evaluated)
                .max(head(&widths, unit, false, evaluated)),
            sums: if subject.mesh().tensor > 1 { SUM_COPIES * 4 * t.saturating_mul(widths.d) } else { 0 },
        }
    }
}

/// Bytes a token of the feed-forward half's gradient, where it is made of separate products
/// (`lora_linear/backward.rs`, `gated_act`, `rms_norm`).
fn plain_half(w: &Widths, unit: Unit, dropout: bool) -> u64 {
    let rounded = if unit == Unit::Rounded { unit.left() } else { 0 };
    // dy, and what comes out; the gradient of gate and up is written over them.
    let down = 4 * w.f + rounded * w.d;
    let gate_up = rounded * 2 * w.f + 4 * w.d;
    // A dropped copy of the input, and each part's share of the input's gradient.
    let dropped = if dropout { 8 * w.f } else { 0 };
    8 * w.d + down.max(gate_up) + dropped + 8 * w.rank
}

/// Bytes of the fused half's gradient: dy, dx, and the sums of each group of tokens (`gated_mlp/fused/backward.rs`).
fn fused_half(w: &Widths, tokens: u64) -> u64 {
    let sums = 4 * w.rank.next_multiple_of(16) * 3 * (w.d + w.f);
    (8 * w.d + 12 * w.rank).saturating_mul(tokens).saturating_add(sums.saturating_mul(tokens.div_ceil(GROUP)))
}

/// Bytes a token of attention's half: the gradients of heads and projections, packed keys, and the keys' gradients of
/// every chunk of queries (`attention/tiles/backward.rs`), or of every key head (`attention/backward.rs`).
fn attention_half(w: &Widths, unit: Unit, chunks: u64, dropout: bool) -> u64 {
    let qkv = w.q + 2 * w.kv;
    let rounded = if unit == Unit::Rounded { unit.left() * qkv } else { 0 };
    let inside = match unit {
        // Keys and values, twice as tiles; half of all chunks see a key.
        Unit::Tiles => 8 * w.kv + 8 * w.kv * chunks.div_ceil(2),
        Unit::Plain | Unit::Rounded => 4 * (w.q + 2 * w.kv),
    };
    let dropped = if dropout { 8 * w.d } else { 0 };
    // dy stays for the residual; the gradient of the heads, then of their projections, then of the input.
    let attention = 4 * w.q + 4 * qkv + inside;
    let projections = 4 * qkv + rounded + 8 * w.d + dropped;
    4 * w.d + attention.max(projections) + 12 * w.rank
}

/// Bytes of the last norm, the head and the loss (`linear_cross_entropy/cpu`): no matrix of tokens and vocabulary.
fn head(w: &Widths, unit: Unit, gradient: bool, tokens: u64) -> u64 {
    const BLOCK: u64 = 512;
    const LOGITS: u64 = 1 << 22;
    // The input, its norm, and the operand of the products.
    let input = 8 * w.d + if unit == Unit::Tiles { 2 * w.d } else { 4 * w.d };
    // The sums, the gradient, and that times the loss's own.
    let sums = if gradient { 12 * w.d } else { 0 };
    let logits = if unit == Unit::Tiles { 0 } else { 4 * LOGITS.min(tokens.saturating_mul(BLOCK)) };
    (input + sums).saturating_mul(tokens).saturating_add(logits).saturating_add(BLOCK * w.d * 4)
}

/// Bytes that operands of the matrix unit are packed into (`matmul/cpu/tiles.rs`, `gated_mlp/fused/packed.rs`).
fn packed(w: &Widths, unit: Unit, fused: bool, tokens: u64) -> u64 {
    if unit != Unit::Tiles {
        return 0;
    }
    let attention = 2 * (w.q + 2 * w.kv);
    if fused {
        // Gate and up in both directions, and down in one.
        let weights = 5 * mapped(2 * w.d.saturating_mul(w.f));
        return mapped(attention.saturating_mul(tokens)).saturating_add(weights);
    }
    (attention.max(4 * w.f) + 2 * w.d).saturating_mul(tokens)
}

/// Bytes that each thread keeps for its tasks: packed columns, and a stretch of rows as tiles and as sums.
fn of_thread(w: &Widths) -> u64 {
    const STRETCH: u64 = 128;
    let panels = mapped(PANEL_BYTES.min(4 * w.d.saturating_mul(w.f)));
    panels + 2 * mapped(2 * STRETCH * w.d) + 3 * mapped(2 * STRETCH * w.f) + mapped(4 * STRETCH * w.d)
}

/// Bytes of a buffer of so many, which if it is large has large pages of its own (`matmul/cpu/scratch.rs`).
fn mapped(bytes: u64) -> u64 {
    /// Bytes from which it has.
    const LARGE: u64 = 128 << 10;
    const PAGE: u64 = 2 << 20;
    if bytes < LARGE { bytes } else { bytes.checked_next_multiple_of(PAGE).unwrap_or(bytes) }
}

/// Bytes a token of a block without gradients.
fn forward(w: &Widths, fused: bool) -> u64 {
    let attention = 4 * (2 * w.d + 2 * w.q + 2 * w.kv + w.heads);
    let half = if fused { 8 * w.d } else { 4 * (2 * w.d + 3 * w.f) };
    4 * w.d + attention.max(half)
}
