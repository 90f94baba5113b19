//! One decoder block: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
//!
//! Shapes: `t` tokens of all segments, `d` hidden size; `x_td` is the residual stream.

use burn::tensor::Tensor;
use seedcorn_adapters::Projection;
use seedcorn_kernels::attention::{AttentionConfig, QkvLayout, attention};
use seedcorn_kernels::frozen::FrozenWeight;
use seedcorn_kernels::gated_act::GatedKind;
use seedcorn_kernels::gated_mlp::{self, gated_mlp_addend};
use seedcorn_kernels::lora_linear::{Part, lora_linear};
use seedcorn_kernels::qk_norm::qk_norm;
use seedcorn_kernels::rms_norm::rms_norm;
use seedcorn_kernels::rope::{RopeTable, rope};

use super::input::{Adapted, Input};

/// A decoder block's frozen parameters.
#[derive(Debug)]
pub(super) struct Block {
    /// `[d]`, before attention.
    pub attn_norm: Tensor<1>,
    /// `[d]`, before the feed-forward layer.
    pub mlp_norm: Tensor<1>,
    /// Query, key and value projections; they share one input.
    pub qkv: [Projection; 3],
    /// Weights of the query and key head norms, `[head_dim]` each.
    pub qk_norm: Option<[Tensor<1>; 2]>,
    /// Attention output.
    pub o: Projection,
    /// Gate and up projections; they share one input.
    pub gate_up: [Projection; 2],
    /// Down projection.
    pub down: Projection,
    /// Scale and window of attention.
    pub attention: AttentionConfig,
    /// Added to the mean square in every norm.
    pub eps: f32,
    /// Whether the halves add their input to what they give: of slices of a block one does.
    pub residual: bool,
}

/// What is the same for all blocks.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    /// Heads side by side in one row.
    pub layout: QkvLayout,
    /// Rotation of queries and keys.
    pub rope: RopeTable,
}

/// The leaves of a block's graph: each adapted module's place in the adapter, with its tracked factors.
pub(super) type Leaves = Vec<(usize, Part)>;

impl Block {
    /// Returns the linear layers in the order in which they are applied.
    pub(super) fn projections(&self) -> impl Iterator<Item = &Projection> {
        self.qkv.iter().chain([&self.o]).chain(&self.gate_up).chain([&self.down])
    }

    /// Returns their matrices.
    pub(super) fn weights(&self) -> impl Iterator<Item = &FrozenWeight> {
        self.projections().map(|projection| &projection.weight)
    }

    /// The first half: `x + o(attention(norm(x)))`. The addend `x` is no part of the graph: who sends a gradient back
    /// adds it to that of the graph, on all threads.
    pub(super) fn attention_half(
        &self,
        x_td: Tensor<2>,
        input: &Input,
        shared: &Shared,
        adapted: Adapted,
        leaves: &mut Leaves,
    ) -> Tensor<2> {
        let qkv = self.queries_keys_values(x_td.clone(), &input.positions, shared, adapted, leaves);
        let heads = attention(qkv, shared.layout, input.segments.clone(), self.attention);
        self.attended(x_td.detach(), heads, adapted, leaves)
    }

    /// Returns rotated queries and keys, and values: `[t, layout.width()]`.
    pub(super) fn queries_keys_values(
        &self,
        x_td: Tensor<2>,
        positions: &std::sync::Arc<[u32]>,
        shared: &Shared,
        adapted: Adapted,
        leaves: &mut Leaves,
    ) -> Tensor<2> {
        let normed = rms_norm(x_td, self.attn_norm.clone(), self.eps);
        let [q, k, v] = &self.qkv;
        let mut qkv = lora_linear(normed, &adapted.parts(&[q, k, v], leaves), None);
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            qkv = qk_norm(qkv, shared.layout, q_norm.clone(), k_norm.clone(), self.eps);
        }
        rope(qkv, shared.layout, positions.clone(), shared.rope.clone())
    }

    /// Adds the output projection of attention's heads to its half's input.
    pub(super) fn attended(
        &self,
        x_td: Tensor<2>,
        heads: Tensor<2>,
        adapted: Adapted,
        leaves: &mut Leaves,
    ) -> Tensor<2> {
        lora_linear(heads, &adapted.parts(&[&self.o], leaves), self.residual.then_some(x_td))
    }

    /// Whether the graph of the feed-forward half over so many tokens keeps nothing much beside its input.
    pub(super) fn feed_forward_is_light(&self, tokens: usize, adapted: Adapted) -> bool {
        let constant = Adapted { tracked: false, ..adapted };
        gated_mlp::fits(tokens, &self.feed_forward_parts(constant, &mut Vec::new()))
    }

    /// Gate, up and down with their factors.
    fn feed_forward_parts(&self, adapted: Adapted, leaves: &mut Leaves) -> [Part; 3] {
        let [gate, up] = &self.gate_up;
        let parts = adapted.parts(&[gate, up, &self.down], leaves);
        parts.try_into().expect("three projections give three parts")
    }

    /// The second half: `x + mlp(norm(x))`.
    pub(super) fn feed_forward_half(
        &self,
        x_td: Tensor<2>,
        adapted: Adapted,
        leaves: &mut Leaves,
    ) -> Tensor<2> {
        let parts = self.feed_forward_parts(adapted, leaves);
        gated_mlp_addend(x_td, self.mlp_norm.clone(), self.eps, &parts, GatedKind::SwiGlu, self.residual)
    }
}
