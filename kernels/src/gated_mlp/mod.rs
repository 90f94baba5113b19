//! The feed-forward half of a block: `y = x + down(act(gate(n)) * up(n))` with `n = rms_norm(x)`.
//!
//! Every projection may be adapted. On the AMX tier in bf16 the half is one kernel that takes a few rows at a time
//! through all of it, so that what lies between stays in the second-level cache, and the backward pass computes
//! it again; otherwise it is the composition of [`rms_norm`], [`lora_linear`] and
//! [`gated_act`].
//!
//! # Shapes
//! - `x`, `y`: `[tokens, d]`; gate and up `[f, d]`, down `[d, f]`
//!
//! # Limits
//! Forward `6 tokens d f` FLOPs, backward `10 tokens d f` (gate and up again, then the input's gradients). Bytes of the
//! fused kernel: `x` and `y` once, the weights once as bf16 tiles, and from the caches once for each
//! stretch of rows; no `[tokens, f]` matrix is in memory.

mod autodiff;
#[cfg(target_arch = "x86_64")]
mod fused;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::frozen::Compute;
use crate::gated_act::{GatedKind, gated_act};
use crate::isa::{self, Tier};
use crate::lora_linear::{FrozenPart, Part, check, lora_linear};
use crate::rms_norm::rms_norm;

/// The number of tensors in [`Inputs`].
pub(crate) const INPUTS: usize = 8;

/// The tensors of one call; `[1, 1]` placeholders stand for absent factors.
#[derive(Clone, Debug, ExtensionType)]
pub struct Inputs<B: Backend> {
    /// `[tokens, d]`.
    pub x: FloatTensor<B>,
    /// The norm's weight, `[d]`.
    pub norm: FloatTensor<B>,
    /// `A` of the gate projection.
    pub gate_a: FloatTensor<B>,
    /// `B` of the gate projection.
    pub gate_b: FloatTensor<B>,
    /// `A` of the up projection.
    pub up_a: FloatTensor<B>,
    /// `B` of the up projection.
    pub up_b: FloatTensor<B>,
    /// `A` of the down projection.
    pub down_a: FloatTensor<B>,
    /// `B` of the down projection.
    pub down_b: FloatTensor<B>,
}

impl<B: Backend> Inputs<B> {
    /// The tensors in the order of the fields.
    pub(crate) fn into_array(self) -> [FloatTensor<B>; INPUTS] {
        [self.x, self.norm, self.gate_a, self.gate_b, self.up_a, self.up_b, self.down_a, self.down_b]
    }
}

impl<B: Backend> From<[FloatTensor<B>; INPUTS]> for Inputs<B> {
    fn from([x, norm, gate_a, gate_b, up_a, up_b, down_a, down_b]: [FloatTensor<B>; INPUTS]) -> Self {
        Self { x, norm, gate_a, gate_b, up_a, up_b, down_a, down_b }
    }
}

/// What a call is besides its tensors. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Config {
    /// Gate, up, down.
    parts: Arc<[FrozenPart; 3]>,
    kind: GatedKind,
    eps: f32,
    /// Whether `x` is added to the output.
    residual: bool,
}

impl Config {
    /// Columns of the low-rank products of all parts.
    fn ranks(&self) -> usize {
        self.parts.iter().filter_map(|part| part.lora).map(|lora| lora.rank).sum()
    }
}

/// The backend's side of the fused op.
#[backend_extension(Autodiff, Flex)]
pub trait GatedMlpBackend: Backend {
    /// See [`gated_mlp`].
    fn gated_mlp(#[extension_type] inputs: Inputs<Self>, config: Config) -> FloatTensor<Self>;

    /// The output, and what the backward pass needs of the adapters: `[tokens, sum of ranks]`.
    fn gated_mlp_forward(
        #[extension_type] inputs: Inputs<Self>,
        config: Config,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of `x` and of each `A` and `B` in the order of [`Inputs`], without the norm's.
    fn gated_mlp_backward(
        dy: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        #[extension_type] inputs: Inputs<Self>,
        config: Config,
    ) -> Vec<FloatTensor<Self>>;
}

/// Applies the feed-forward half of a block to `x`, with its norm and residual.
///
/// `parts` are the gate, up and down projections; `norm` is `[d]`.
///
/// # Panics
/// When shapes do not agree.
pub fn gated_mlp(x: Tensor<2>, norm: Tensor<1>, eps: f32, parts: &[Part; 3], kind: GatedKind) -> Tensor<2> {
    gated_mlp_addend(x, norm, eps, parts, kind, true)
}

/// As [`gated_mlp`], of a part of the inner columns: what parts give is added up, and `x` is an addend of one of them.
///
/// # Panics
/// As there.
pub fn gated_mlp_addend(
    x: Tensor<2>,
    norm: Tensor<1>,
    eps: f32,
    parts: &[Part; 3],
    kind: GatedKind,
    residual: bool,
) -> Tensor<2> {
    let [gate, up, down] = parts;
    let [tokens, d] = x.dims();
    if !fits(tokens, parts) {
        let normed = rms_norm(x.clone(), norm, eps);
        let inner = gated_act(lora_linear(normed, &[gate.clone(), up.clone()], None), kind);
        return lora_linear(inner, std::slice::from_ref(down), residual.then_some(x));
    }
    let f = gate.weight.shape()[0];
    assert_eq!(up.weight.shape(), [f, d], "gate and up have different shapes");
    assert_eq!(norm.dims(), [d], "the norm's weight has another width");
    let frozen = [check(gate, d), check(up, d), check(down, f)];
    let config = Config { parts: Arc::new(frozen), kind, eps, residual };
    let placeholder = || Tensor::<2>::zeros([1, 1], &x.device().inner());
    let factors = parts.iter().flat_map(|part| match &part.factors {
        Some(factors) => [factors.a.clone(), factors.b.clone()],
        None => [placeholder(), placeholder()],
    });
    let mut factors = factors.map(Tensor::into_dispatch);
    let mut inputs = [x.clone().into_dispatch(), norm.into_dispatch()].into_iter().chain(&mut factors);
    let inputs: [_; INPUTS] = std::array::from_fn(|_| inputs.next().expect("two and six tensors"));
    Tensor::from_dispatch(Dispatch::gated_mlp(inputs.into(), config))
}

/// Whether the kernel on tiles takes parts of these widths `(d, f)`, without bias and dropout; then nothing as wide as
/// `f` is kept for the backward pass.
pub fn is_fused(tokens: usize, [d, f]: [usize; 2], compute: Compute) -> bool {
    /// Bytes of packed weights that the outer caches hold: every stretch of rows reads them all.
    const MOST: usize = 32 << 20;
    let tiles = cfg!(target_arch = "x86_64") && isa::tier() == Tier::Amx && tokens >= 16 && 6 * d * f <= MOST;
    tiles && compute == Compute::Bf16 && d.is_multiple_of(64) && f.is_multiple_of(64)
}

/// Whether the fused kernel takes the call: bf16 on tiles, whole tiles of widths, no bias, no dropout, enough rows, on
/// the CPU.
pub fn fits(tokens: usize, parts: &[Part; 3]) -> bool {
    parts.iter().all(|part| {
        let dropout = part.factors.as_ref().is_some_and(|factors| factors.dropout.is_some());
        let plain = part.bias.is_none() && !dropout && !part.weight.is_on_device();
        plain && is_fused(tokens, part.weight.shape(), part.weight.compute())
    })
}

#[cfg(target_arch = "x86_64")]
impl GatedMlpBackend for Flex {
    fn gated_mlp(inputs: Inputs<Self>, config: Config) -> FloatTensor<Self> {
        Self::gated_mlp_forward(inputs, config).0
    }

    fn gated_mlp_forward(inputs: Inputs<Self>, config: Config) -> (FloatTensor<Self>, FloatTensor<Self>) {
        fused::forward(&inputs.into_array().map(crate::flex::contiguous), &config)
    }

    fn gated_mlp_backward(
        dy: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        inputs: Inputs<Self>,
        config: Config,
    ) -> Vec<FloatTensor<Self>> {
        let [dy, kept] = [dy, kept].map(crate::flex::contiguous);
        fused::backward(&inputs.into_array().map(crate::flex::contiguous), &dy, &kept, &config)
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl GatedMlpBackend for Flex {
    fn gated_mlp(_: Inputs<Self>, _: Config) -> FloatTensor<Self> {
        unreachable!("`fits` takes this op only where there are tiles")
    }

    fn gated_mlp_forward(_: Inputs<Self>, _: Config) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("`fits` takes this op only where there are tiles")
    }

    fn gated_mlp_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Inputs<Self>,
        _: Config,
    ) -> Vec<FloatTensor<Self>> {
        unreachable!("`fits` takes this op only where there are tiles")
    }
}
