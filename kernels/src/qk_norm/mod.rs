//! Root-mean-square normalisation of every query and key head of a fused `qkv` tensor (Qwen3).
//!
//! One frozen weight of `head_dim` for all query heads, one for all key heads; value heads are copied. Only
//! `dqkv` is computed, and only `qkv` is kept for it. The maths are those of [`rms_norm`](crate::rms_norm).
//!
//! # Source
//! `Qwen3Attention` (`q_norm`, `k_norm`) in Hugging Face transformers.

mod autodiff;
mod backward;
mod cpu;
#[cfg(feature = "cube")]
mod cubecl;
pub mod reference;
#[cfg(test)]
mod tests;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::attention::QkvLayout;
use crate::{flex, isa};

/// Backends that have the op; call [`qk_norm`] instead.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cube"))]
pub trait QkNormBackend: Backend {
    /// Normalises the query and key heads of `qkv: [t, width]`.
    fn qk_norm(
        qkv: FloatTensor<Self>,
        q_weight: FloatTensor<Self>,
        k_weight: FloatTensor<Self>,
        layout: QkvLayout,
        eps: f32,
    ) -> FloatTensor<Self>;
    /// Computes `dqkv` from `qkv` and the gradient of the output.
    fn qk_norm_backward(
        qkv: FloatTensor<Self>,
        q_weight: FloatTensor<Self>,
        k_weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        layout: QkvLayout,
        eps: f32,
    ) -> FloatTensor<Self>;
}

/// Normalises each query and key head: `y = x * rsqrt(mean(x^2) + eps) * weight` over `head_dim` elements.
///
/// # Shapes
/// - `qkv`: `[t, layout.width()]`, f32, not rotated yet
/// - `q_weight`, `k_weight`: `[head_dim]`, f32, frozen (get no gradient)
/// - result: as `qkv`
///
/// # Panics
/// If the shapes disagree.
pub fn qk_norm(
    qkv: Tensor<2>,
    layout: QkvLayout,
    q_weight: Tensor<1>,
    k_weight: Tensor<1>,
    eps: f32,
) -> Tensor<2> {
    layout.assert_fits("qk_norm", qkv.dims()[1]);
    let weights = [q_weight.dims(), k_weight.dims()];
    assert_eq!(weights, [[layout.head_dim]; 2], "`qk_norm`: weights against `head_dim`");
    Tensor::from_dispatch(Dispatch::qk_norm(
        qkv.into_dispatch(),
        q_weight.into_dispatch(),
        k_weight.into_dispatch(),
        layout,
        eps,
    ))
}

impl QkNormBackend for Flex {
    fn qk_norm(
        qkv: FloatTensor<Self>,
        q_weight: FloatTensor<Self>,
        k_weight: FloatTensor<Self>,
        layout: QkvLayout,
        eps: f32,
    ) -> FloatTensor<Self> {
        let [qkv, q_weight, k_weight] = [qkv, q_weight, k_weight].map(flex::contiguous);
        let t = qkv.layout().shape()[0];
        let weights = [flex::slice(&q_weight), flex::slice(&k_weight)];
        flex::tensor(cpu::qk_norm(isa::tier(), flex::slice(&qkv), weights, layout, eps), [t, layout.width()])
    }

    fn qk_norm_backward(
        qkv: FloatTensor<Self>,
        q_weight: FloatTensor<Self>,
        k_weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        layout: QkvLayout,
        eps: f32,
    ) -> FloatTensor<Self> {
        let [qkv, q_weight, k_weight, dy] = [qkv, q_weight, k_weight, dy].map(flex::contiguous);
        let t = qkv.layout().shape()[0];
        let weights = [flex::slice(&q_weight), flex::slice(&k_weight)];
        let (x, dy) = (flex::slice(&qkv), flex::slice(&dy));
        flex::tensor(backward::qk_norm(isa::tier(), x, weights, dy, layout, eps), [t, layout.width()])
    }
}
