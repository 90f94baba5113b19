//! `sum over tokens with a target of -log softmax(h . W^T)[target]`: head and loss in one op.
//!
//! The `[tokens, vocab]` matrix never exists: rows go through the head a chunk at a time, and where a
//! gradient is wanted `dh` is computed in the same sweep, since the derivative of a sum by each of its terms
//! is one. Rows without a target cost nothing.
//!
//! # Shapes
//! - `h`: `[tokens, hidden]`, `W`: `[vocab, hidden]`, `targets`: `[tokens]`, negative = no target
//! - result: `[1]`
//!
//! # Numerics
//! Logits in f32; the log-sum-exp and the sum of losses are added up in f64 and rounded once.
//!
//! # Source
//! Hsu et al., Liger Kernel (2024), arXiv:2410.10989, section 3.2, for the gradient in the forward sweep.

mod autodiff;
mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::flex::{contiguous, slice, tensor};
use crate::frozen::FrozenWeight;
use crate::isa;

/// The backend's side of the op.
#[backend_extension(Autodiff, Flex)]
pub trait LinearCrossEntropyBackend: Backend {
    /// See [`linear_cross_entropy`].
    fn linear_cross_entropy(
        h: FloatTensor<Self>,
        head: FrozenWeight,
        targets: Arc<[i32]>,
    ) -> FloatTensor<Self>;

    /// The loss and its gradient with respect to `h`.
    fn linear_cross_entropy_with_gradient(
        h: FloatTensor<Self>,
        head: FrozenWeight,
        targets: Arc<[i32]>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// Computes the sum of the token losses.
///
/// # Panics
/// When there is not one target a row, or a target is not below the head's rows.
pub fn linear_cross_entropy(h: Tensor<2>, head: &FrozenWeight, targets: Arc<[i32]>) -> Tensor<1> {
    let ([tokens, hidden], [vocab, width]) = (h.dims(), head.shape());
    assert_eq!(hidden, width, "head and hidden state disagree on the width");
    assert_eq!(targets.len(), tokens, "not one target a row");
    assert!(targets.iter().all(|&target| target < vocab as i32), "a target beyond the head's {vocab} rows");
    Tensor::from_dispatch(Dispatch::linear_cross_entropy(h.into_dispatch(), head.clone(), targets))
}

impl LinearCrossEntropyBackend for Flex {
    fn linear_cross_entropy(
        h: FloatTensor<Self>,
        head: FrozenWeight,
        targets: Arc<[i32]>,
    ) -> FloatTensor<Self> {
        let (loss, _) = cpu::forward(isa::tier(), slice(&contiguous(h)), &head, &targets, false);
        tensor(vec![loss as f32], [1])
    }

    fn linear_cross_entropy_with_gradient(
        h: FloatTensor<Self>,
        head: FrozenWeight,
        targets: Arc<[i32]>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (loss, dh) = cpu::forward(isa::tier(), slice(&contiguous(h)), &head, &targets, true);
        (tensor(vec![loss as f32], [1]), tensor(dh, [targets.len(), head.shape()[1]]))
    }
}
