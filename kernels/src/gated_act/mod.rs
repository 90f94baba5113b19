//! Gated activations of the feed-forward block: `y = act(gate) * up` from one fused tensor `gate | up`.
//!
//! The backward pass recomputes everything from `gate_up`, the only tensor kept, and writes the gradient in its
//! place.
//!
//! # Limits
//! Bytes: 12 an output element forward (16 where the output has to be fetched before it is written), 20 backward.
//! The arithmetic (about 25 vector instructions for 16 elements) hides behind them.
//!
//! # Source
//! Shazeer, "GLU Variants Improve Transformer", 2020, <https://arxiv.org/abs/2002.05202>; `act_fn` names
//! `silu` and `gelu_pytorch_tanh` in Hugging Face transformers.

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

#[cfg(target_arch = "x86_64")]
pub(crate) use backward::both as gate_rows_both;
#[cfg(target_arch = "x86_64")]
pub(crate) use cpu::rows as gate_rows;

use crate::{flex, isa};

/// Which function the gate goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GatedKind {
    /// `silu(g) = g / (1 + e^-g)`: Llama, Mistral, Qwen.
    SwiGlu,
    /// `gelu(g) = g/2 (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3)))`: Gemma's tanh form.
    GeGlu,
}

/// Backends that have the op; call [`gated_act`] instead.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cube"))]
pub trait GatedActBackend: Backend {
    /// Computes `[t, f]` from `gate_up: [t, 2f]`.
    fn gated_act(gate_up: FloatTensor<Self>, kind: GatedKind) -> FloatTensor<Self>;
    /// Computes the gradient of `gate_up: [t, 2f]` from `dy: [t, f]`.
    fn gated_act_backward(
        gate_up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        kind: GatedKind,
    ) -> FloatTensor<Self>;
}

/// Applies `y[t, i] = act(gate_up[t, i]) * gate_up[t, f + i]`.
///
/// # Shapes
/// - `gate_up`: `[t, 2f]`, f32, the gate in the first half of each row
/// - result: `[t, f]`
///
/// # Panics
/// If the rows have an odd length.
pub fn gated_act(gate_up: Tensor<2>, kind: GatedKind) -> Tensor<2> {
    let [_, width] = gate_up.dims();
    assert!(width.is_multiple_of(2), "`gated_act`: rows of {width} do not split into gate and up");
    Tensor::from_dispatch(Dispatch::gated_act(gate_up.into_dispatch(), kind))
}

impl GatedActBackend for Flex {
    fn gated_act(gate_up: FloatTensor<Self>, kind: GatedKind) -> FloatTensor<Self> {
        let gate_up = flex::contiguous(gate_up);
        let [t, f] = [gate_up.layout().shape()[0], gate_up.layout().shape()[1] / 2];
        flex::tensor(cpu::gated_act(isa::tier(), flex::slice(&gate_up), f, kind), [t, f])
    }

    fn gated_act_backward(
        gate_up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        kind: GatedKind,
    ) -> FloatTensor<Self> {
        let (mut gate_up, dy) = (flex::contiguous(gate_up), flex::contiguous(dy));
        let f = gate_up.layout().shape()[1] / 2;
        backward::gated_act(isa::tier(), flex::slice_mut(&mut gate_up), flex::slice(&dy), f, kind);
        gate_up
    }
}
