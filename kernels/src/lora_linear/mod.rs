//! `y = x . W^T + bias + scale * (dropout(x) . A^T) . B^T`, for several projections that share one input.
//!
//! `W` is frozen and may be quantized; only `dx`, `dA` and `dB` exist, never `dW`. The outputs of the
//! projections stand side by side in one row (q, k, v; gate, up), so that what follows reads one tensor.
//!
//! # Shapes
//! - `x`: `[tokens, in]`
//! - `W`: `[out, in]`, `bias`: `[out]`, `A`: `[rank, in]`, `B`: `[out, rank]`
//! - `y`: `[tokens, sum of out]`
//!
//! # Source
//! Hu et al., LoRA (2021), arXiv:2106.09685; Dettmers et al., QLoRA (2023), arXiv:2305.14314.

mod autodiff;
mod backward;
mod cpu;
mod dropout;
pub mod reference;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

pub use dropout::Dropout;

use crate::flex::{contiguous, slice};
use crate::frozen::FrozenWeight;

/// The most projections that one call takes.
pub const MAX_PARTS: usize = 3;

/// One projection of a group: the frozen part, and its trained factors if it is adapted.
#[derive(Clone, Debug)]
pub struct Part {
    /// Frozen weight `[out, in]`.
    pub weight: FrozenWeight,
    /// Frozen bias `[out]`.
    pub bias: Option<Arc<[f32]>>,
    /// Trained low-rank factors.
    pub factors: Option<Factors>,
}

/// The trained factors of one projection.
#[derive(Clone, Debug)]
pub struct Factors {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    /// What the low-rank product is multiplied by: `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
    pub scale: f32,
    /// Dropout on the adapter's input, in training only.
    pub dropout: Option<Dropout>,
}

/// What a group is besides its tensors. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Group {
    parts: Arc<[FrozenPart]>,
}

#[derive(Debug)]
struct FrozenPart {
    weight: FrozenWeight,
    bias: Option<Arc<[f32]>>,
    lora: Option<LowRank>,
}

#[derive(Clone, Copy, Debug)]
struct LowRank {
    rank: usize,
    scale: f32,
    dropout: Option<Dropout>,
}

impl Group {
    fn in_features(&self) -> usize {
        self.parts[0].weight.shape()[1]
    }

    fn out_features(&self) -> usize {
        self.parts.iter().map(|part| part.weight.shape()[0]).sum()
    }
}

/// The backend's side of the op. The factors of absent adapters are `[1, 1]` placeholders.
#[backend_extension(Autodiff, Flex)]
pub trait LoraLinearBackend: Backend {
    /// See [`lora_linear`].
    fn lora_linear(
        x: FloatTensor<Self>,
        a0: FloatTensor<Self>,
        b0: FloatTensor<Self>,
        a1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        a2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
        group: Group,
    ) -> FloatTensor<Self>;

    /// The gradients `dx`, then `dA`, `dB` of each part; `dx` is a placeholder unless asked for.
    #[allow(clippy::type_complexity)]
    fn lora_linear_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        a0: FloatTensor<Self>,
        b0: FloatTensor<Self>,
        a1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        a2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
        group: Group,
        need_dx: bool,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    );
}

/// Applies up to [`MAX_PARTS`] projections to one input.
///
/// # Panics
/// When there is no part or more than [`MAX_PARTS`], or shapes do not agree.
pub fn lora_linear(x: Tensor<2>, parts: &[Part]) -> Tensor<2> {
    assert!((1..=MAX_PARTS).contains(&parts.len()), "a group of {} projections", parts.len());
    let in_features = x.dims()[1];
    let frozen = parts.iter().map(|part| check(part, in_features)).collect();
    let placeholder = || Tensor::<2>::zeros([1, 1], &x.device().inner());
    let factor = |index: usize| match parts.get(index).and_then(|part| part.factors.as_ref()) {
        Some(factors) => [factors.a.clone().into_dispatch(), factors.b.clone().into_dispatch()],
        None => [placeholder().into_dispatch(), placeholder().into_dispatch()],
    };
    let ([a0, b0], [a1, b1], [a2, b2]) = (factor(0), factor(1), factor(2));
    let group = Group { parts: frozen };
    Tensor::from_dispatch(Dispatch::lora_linear(x.into_dispatch(), a0, b0, a1, b1, a2, b2, group))
}

fn check(part: &Part, in_features: usize) -> FrozenPart {
    let [out, width] = part.weight.shape();
    assert_eq!(width, in_features, "weight and input disagree on the input width");
    if let Some(bias) = &part.bias {
        assert_eq!(bias.len(), out, "bias and weight disagree on the output width");
    }
    let lora = part.factors.as_ref().map(|factors| {
        let [rank, a_in] = factors.a.dims();
        assert_eq!(
            [a_in, out, rank],
            [width, factors.b.dims()[0], factors.b.dims()[1]],
            "A, B and W disagree"
        );
        LowRank { rank, scale: factors.scale, dropout: factors.dropout }
    });
    FrozenPart { weight: part.weight.clone(), bias: part.bias.clone(), lora }
}

impl LoraLinearBackend for Flex {
    fn lora_linear(
        x: FloatTensor<Self>,
        a0: FloatTensor<Self>,
        b0: FloatTensor<Self>,
        a1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        a2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
        group: Group,
    ) -> FloatTensor<Self> {
        let [x, a0, b0, a1, b1, a2, b2] = [x, a0, b0, a1, b1, a2, b2].map(contiguous);
        cpu::forward(slice(&x), [[&a0, &b0], [&a1, &b1], [&a2, &b2]], &group)
    }

    fn lora_linear_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        a0: FloatTensor<Self>,
        b0: FloatTensor<Self>,
        a1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        a2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
        group: Group,
        need_dx: bool,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let [x, dy, a0, b0, a1, b1, a2, b2] = [x, dy, a0, b0, a1, b1, a2, b2].map(contiguous);
        let factors = [[&a0, &b0], [&a1, &b1], [&a2, &b2]];
        backward::backward(slice(&x), slice(&dy), factors, &group, need_dx).into()
    }
}
