//! `y = x . W^T + bias + scale * (dropout(x) . A^T) . B^T (+ residual)`, for several projections that share one input.
//!
//! `W` is frozen and may be quantized; only `dx`, `dA` and `dB` exist, never `dW`. The outputs of the
//! projections stand side by side in one row (q, k, v; gate, up), so that what follows reads one tensor.
//!
//! # Shapes
//! - `x`: `[tokens, in]`
//! - `W`: `[out, in]`, `bias`: `[out]`, `A`: `[rank, in]`, `B`: `[out, rank]`
//! - `y`, residual: `[tokens, sum of out]`
//!
//! # Numerics
//! With [`Compute::F32`](crate::frozen::Compute) all is f32. With `Bf16` the frozen weights and the left operand of every
//! product are rounded to bf16 and summed in f32; on the AMX tier so are the factors.
//!
//! # Source
//! Hu et al., LoRA (2021), arXiv:2106.09685; Dettmers et al., QLoRA (2023), arXiv:2305.14314.

mod autodiff;
mod backward;
mod cpu;
#[cfg(feature = "cube")]
mod cubecl;
mod dropout;
mod few_rows;
pub mod reference;
#[cfg(feature = "tensor-cores")]
pub mod tensor_core;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, Flex, backend_extension};
use burn::tensor::Tensor;

#[cfg(target_arch = "x86_64")]
pub(crate) use backward::transposed;
pub use dropout::{Columns, Dropout};

use crate::flex::{contiguous, slice, tensor};
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
    residual: bool,
}

/// A projection without its trained tensors.
#[derive(Debug)]
pub(crate) struct FrozenPart {
    pub(crate) weight: FrozenWeight,
    bias: Option<Arc<[f32]>>,
    pub(crate) lora: Option<LowRank>,
}

/// What an adapter is besides its factors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRank {
    pub(crate) rank: usize,
    pub(crate) scale: f32,
    dropout: Option<Dropout>,
}

impl Group {
    fn in_features(&self) -> usize {
        self.parts[0].weight.shape()[1]
    }

    fn out_features(&self) -> usize {
        self.parts.iter().map(|part| part.weight.shape()[0]).sum()
    }

    fn ranks(&self) -> usize {
        self.parts.iter().filter_map(|part| part.lora).map(|lora| lora.rank).sum()
    }
}

/// The number of tensors in [`Inputs`].
pub(crate) const INPUTS: usize = 2 + 2 * MAX_PARTS;

/// The tensors of one call; `[1, 1]` placeholders stand for what is absent.
#[derive(Clone, Debug, ExtensionType)]
pub struct Inputs<B: Backend> {
    /// `[tokens, in]`.
    pub x: FloatTensor<B>,
    /// `[tokens, sum of out]`, added to the output.
    pub residual: FloatTensor<B>,
    /// `A` of the first part.
    pub a0: FloatTensor<B>,
    /// `B` of the first part.
    pub b0: FloatTensor<B>,
    /// `A` of the second part.
    pub a1: FloatTensor<B>,
    /// `B` of the second part.
    pub b1: FloatTensor<B>,
    /// `A` of the third part.
    pub a2: FloatTensor<B>,
    /// `B` of the third part.
    pub b2: FloatTensor<B>,
}

impl<B: Backend> From<[FloatTensor<B>; INPUTS]> for Inputs<B> {
    fn from([x, residual, a0, b0, a1, b1, a2, b2]: [FloatTensor<B>; INPUTS]) -> Self {
        Self { x, residual, a0, b0, a1, b1, a2, b2 }
    }
}

impl<B: Backend> Inputs<B> {
    /// The tensors in the order of the fields.
    pub(crate) fn into_array(self) -> [FloatTensor<B>; INPUTS] {
        [self.x, self.residual, self.a0, self.b0, self.a1, self.b1, self.a2, self.b2]
    }
}

/// The backend's side of the op.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cube"))]
pub trait LoraLinearBackend: Backend {
    /// See [`lora_linear`].
    fn lora_linear(#[extension_type] inputs: Inputs<Self>, group: Group) -> FloatTensor<Self>;

    /// The output, and what the backward pass needs of the adapters: `[tokens, sum of ranks]`.
    fn lora_linear_forward(
        #[extension_type] inputs: Inputs<Self>,
        group: Group,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of `x` (a placeholder unless asked for) and of each `A` and `B`; that of the residual
    /// is `dy`.
    fn lora_linear_backward(
        dy: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        #[extension_type] inputs: Inputs<Self>,
        group: Group,
        need_dx: bool,
    ) -> Vec<FloatTensor<Self>>;
}

/// Applies up to [`MAX_PARTS`] projections to one input, and adds a residual of the output's shape if given.
///
/// # Panics
/// When there is no part or more than [`MAX_PARTS`], or shapes do not agree.
pub fn lora_linear(x: Tensor<2>, parts: &[Part], residual: Option<Tensor<2>>) -> Tensor<2> {
    assert!((1..=MAX_PARTS).contains(&parts.len()), "a group of {} projections", parts.len());
    let [tokens, in_features] = x.dims();
    let frozen = parts.iter().map(|part| check(part, in_features)).collect();
    let group = Group { parts: frozen, residual: residual.is_some() };
    if let Some(residual) = &residual {
        assert_eq!(residual.dims(), [tokens, group.out_features()], "the residual has another shape");
    }
    let device = x.device().inner();
    let placeholder = || Tensor::<2>::zeros([1, 1], &device);
    let mut inputs = vec![x, residual.unwrap_or_else(placeholder)];
    for factors in parts.iter().map(|part| part.factors.as_ref()) {
        let factors = factors.map(|factors| [factors.a.clone(), factors.b.clone()]);
        inputs.extend(factors.unwrap_or_else(|| [placeholder(), placeholder()]));
    }
    inputs.resize_with(INPUTS, placeholder);
    let mut inputs = inputs.into_iter().map(Tensor::into_dispatch);
    let inputs: [_; INPUTS] = std::array::from_fn(|_| inputs.next().expect("the list was filled up"));
    Tensor::from_dispatch(Dispatch::lora_linear(inputs.into(), group))
}

/// Checks a part's shapes and takes its frozen side.
pub(crate) fn check(part: &Part, in_features: usize) -> FrozenPart {
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
    fn lora_linear(inputs: Inputs<Self>, group: Group) -> FloatTensor<Self> {
        Self::lora_linear_forward(inputs, group).0
    }

    fn lora_linear_forward(inputs: Inputs<Self>, group: Group) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, residual, factors @ ..] = inputs.into_array().map(contiguous);
        let tokens = x.layout().shape()[0];
        let residual = group.residual.then(|| slice(&residual));
        let (y, t) = cpu::forward(slice(&x), residual, &factors, &group);
        (tensor(y, [tokens, group.out_features()]), tensor(t, [tokens, group.ranks()]))
    }

    fn lora_linear_backward(
        dy: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        inputs: Inputs<Self>,
        group: Group,
        need_dx: bool,
    ) -> Vec<FloatTensor<Self>> {
        let (dy, kept) = (contiguous(dy), contiguous(kept));
        let [x, _, factors @ ..] = inputs.into_array().map(contiguous);
        let saved = backward::Saved { x: slice(&x), t: slice(&kept), dy: slice(&dy) };
        backward::backward(saved, &factors, &group, need_dx)
    }
}
