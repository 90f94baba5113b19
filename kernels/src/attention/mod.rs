//! Causal attention over packed samples, with grouped heads, sliding window and soft cap.
//!
//! `s_ij = scale q_i . k_j`, capped to `cap tanh(s_ij / cap)` if asked; `p_i = softmax_j s_ij` over the keys
//! `j <= i` of the same segment (and `j > i - window`); `o_i = sum_j p_ij v_j`. Query head `h` reads key and
//! value head `h / (num_heads / num_kv_heads)`.
//!
//! Works in tiles (64 x 64 scores; 32 x 32 on a matrix unit, see `tiles`) with an online softmax: no `[t, t]`
//! matrix exists, and what is kept for the backward pass is the output and one log-sum-exp per token and head.
//! Tiles are counted from the start of a segment, so a sample gives the same bits in a pack and alone.
//!
//! # Limits
//! One layer with `h` query heads of `d` elements has `h n^2 / 2` scores in a segment of `n` tokens. Each costs
//! 4 `d` FLOPs forward (`Q K^T`, `P V`) and 10 `d` backward (`Q K^T` again, `dP`, `dV`, `dK`, `dQ`). Forward
//! reads `qkv` and writes the output, 4 (`width + h d`) bytes a token; backward reads `qkv`, the output and its
//! gradient and writes `dqkv`, twice as much. For SmolLM2-135M (9 heads of 64 over 3 key heads, rows of 960)
//! and 2048 tokens that is 12.6 and 25.2 MB, and 1.2 and 3.0 GFLOP as 4 x 512, or 4.8 and 12.1 as 1 x 2048.
//! In f32 the tiles' products run from the first cache at 190 of 243 GFLOP/s (AVX-512) and 117 of 125 (AVX2).
//! On a matrix unit the softmax, a dozen vector instructions for 16 scores, weighs as much as the products.
//!
//! # Source
//! Dao, "FlashAttention-2", 2023, <https://arxiv.org/abs/2307.08691>; masks as `eager_attention_forward` of
//! Mistral and Gemma 2 in Hugging Face transformers.

mod autodiff;
mod backward;
mod cpu;
#[cfg(feature = "cube")]
mod cubecl;
mod decode;
mod layout;
mod pack;
pub mod reference;
#[cfg(feature = "tensor-cores")]
pub mod tensor_core;
#[cfg(test)]
mod tests;
mod tile;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::frozen::Compute;
use crate::{flex, isa};

pub use decode::attention_decode;
pub use layout::QkvLayout;

/// What besides the layout decides the scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionConfig {
    /// Factor on `q . k`; usually `1 / sqrt(head_dim)`; above 0.
    pub scale: f32,
    /// Tokens that a query sees, itself included; at least 1. None: all before it.
    pub window: Option<usize>,
    /// Bound that scores approach through tanh; above 0. None: unbounded.
    pub soft_cap: Option<f32>,
    /// What the products are made of. `Bf16` is followed on [`Tier::Amx`](isa::Tier) only: where there is no
    /// matrix unit, and in [`attention_decode`], rounding would save no time, so both mean `F32` there.
    pub compute: Compute,
}

impl AttentionConfig {
    /// Returns the first key that query `i` sees.
    pub(crate) fn first_key(self, i: usize) -> usize {
        self.window.map_or(0, |window| (i + 1).saturating_sub(window))
    }

    fn assert_usable(self) {
        assert!(self.scale > 0.0, "`attention`: scale {}", self.scale);
        assert!(self.window != Some(0), "`attention`: a window of 0 sees no key");
        assert!(self.soft_cap.is_none_or(|cap| cap > 0.0), "`attention`: soft cap {:?}", self.soft_cap);
    }
}

/// Backends that have the op; call [`attention`] instead.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cube"))]
pub trait AttentionBackend: Backend {
    /// Computes the output `[t, num_heads * head_dim]`.
    fn packed_attention(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        segments: Arc<[u32]>,
        cfg: AttentionConfig,
    ) -> FloatTensor<Self>;
    /// Computes the output and the log-sum-exp `[t, num_heads]` that the backward pass needs.
    fn packed_attention_forward(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        segments: Arc<[u32]>,
        cfg: AttentionConfig,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// Computes `dqkv` from the input, what `packed_attention_forward` returned, and the output's gradient.
    fn packed_attention_backward(
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
        layout: QkvLayout,
        segments: Arc<[u32]>,
        cfg: AttentionConfig,
    ) -> FloatTensor<Self>;
}

/// Attends causally inside each segment; see the module for the formula.
///
/// # Shapes
/// - `qkv`: `[t, layout.width()]`, f32, rotated already
/// - `segments`: cumulative ends of the packed samples with a leading 0: `[0, .., t]`
/// - result: `[t, num_heads * head_dim]`
///
/// # Panics
/// If the shapes disagree, or `cfg` has a window of 0 or a scale or soft cap that is not above 0.
pub fn attention(qkv: Tensor<2>, layout: QkvLayout, segments: Arc<[u32]>, cfg: AttentionConfig) -> Tensor<2> {
    let [t, width] = qkv.dims();
    layout.assert_fits("attention", width);
    cfg.assert_usable();
    let ends = (segments.first().copied(), segments.last().map(|&end| end as usize));
    assert_eq!(ends, (Some(0), Some(t)), "`attention`: segments run from 0 to the number of tokens");
    assert!(segments.is_sorted(), "`attention`: segments {segments:?} do not ascend");
    Tensor::from_dispatch(Dispatch::packed_attention(qkv.into_dispatch(), layout, segments, cfg))
}

impl AttentionBackend for Flex {
    fn packed_attention(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        segments: Arc<[u32]>,
        cfg: AttentionConfig,
    ) -> FloatTensor<Self> {
        Self::packed_attention_forward(qkv, layout, segments, cfg).0
    }

    fn packed_attention_forward(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        segments: Arc<[u32]>,
        cfg: AttentionConfig,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let qkv = flex::contiguous(qkv);
        let t = qkv.layout().shape()[0];
        let (out, lse) = cpu::attention(isa::tier(), flex::slice(&qkv), layout, &segments, cfg);
        (flex::tensor(out, [t, layout.q_width()]), flex::tensor(lse, [t, layout.num_heads]))
    }

    fn packed_attention_backward(
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
        layout: QkvLayout,
        segments: Arc<[u32]>,
        cfg: AttentionConfig,
    ) -> FloatTensor<Self> {
        let [qkv, out, lse, d_out] = [qkv, out, lse, d_out].map(flex::contiguous);
        let saved = backward::Saved {
            qkv: flex::slice(&qkv),
            out: flex::slice(&out),
            lse: flex::slice(&lse),
            d_out: flex::slice(&d_out),
        };
        let t = qkv.layout().shape()[0];
        flex::tensor(backward::attention(isa::tier(), saved, layout, &segments, cfg), [t, layout.width()])
    }
}
