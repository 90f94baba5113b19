//! Root-mean-square normalisation of rows with a frozen weight: `y = x * rsqrt(mean(x^2) + eps) * weight`.
//!
//! The weight belongs to the frozen base model, so only `dx` is computed. Nothing is kept for the backward
//! pass but `x`: the inverse root is one dot product away.
//!
//! # Source
//! Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, <https://arxiv.org/abs/1910.07467>;
//! order of operations as `LlamaRMSNorm` in Hugging Face transformers.

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

use crate::{flex, isa};

pub(crate) use backward::rows as normalise_rows_backward;
pub(crate) use cpu::rows as normalise_rows;
#[cfg(feature = "cube")]
pub(crate) use cubecl::{gradient, normalise};

/// Backends that have the op; call [`rms_norm`] instead.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cube"))]
pub trait RmsNormBackend: Backend {
    /// Normalises the rows of `x: [t, d]`.
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self>;
    /// Computes `dx: [t, d]` from `x` and `dy: [t, d]`.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
}

/// Normalises every row: `y[t, i] = x[t, i] * rsqrt(mean_j x[t, j]^2 + eps) * weight[i]`.
///
/// # Shapes
/// - `x`: `[t, d]`, f32
/// - `weight`: `[d]`, f32, frozen (gets no gradient)
/// - result: `[t, d]`
///
/// # Panics
/// If `weight` is not `d` long.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f32) -> Tensor<2> {
    let ([_, d], [n]) = (x.dims(), weight.dims());
    assert_eq!(d, n, "`rms_norm`: rows of {d} with a weight of {n}");
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

impl RmsNormBackend for Flex {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let (x, weight) = (flex::contiguous(x), flex::contiguous(weight));
        let shape = [x.layout().shape()[0], x.layout().shape()[1]];
        flex::tensor(cpu::rms_norm(isa::tier(), flex::slice(&x), flex::slice(&weight), eps), shape)
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let (x, weight, dy) = (flex::contiguous(x), flex::contiguous(weight), flex::contiguous(dy));
        let shape = [x.layout().shape()[0], x.layout().shape()[1]];
        let (xs, ws, dys) = (flex::slice(&x), flex::slice(&weight), flex::slice(&dy));
        flex::tensor(backward::rms_norm(isa::tier(), xs, ws, dys, eps), shape)
    }
}
