//! `sum over tokens with a target of -log softmax(h . W^T)[target]`: head and loss in one op.
//!
//! It is attention with the head's rows as keys and values: one sweep over blocks of the vocabulary, in which each
//! row keeps its largest logit, its sum of `exp` and, where a gradient is wanted, `sum of exp . W`. The
//! derivative of a sum by each of its terms is one, so `dh = (sum of exp . W) / (sum of exp) - W[target]` is
//! ready when the loss is. No `[tokens, vocab]` matrix exists, and each block of a quantized head is dequantized
//! once. Rows without a target cost nothing.
//!
//! # Shapes
//! - `h`: `[tokens, hidden]`, `W`: `[vocab, hidden]`, `targets`: `[tokens]`, negative = no target
//! - result: `[1]`
//!
//! # Numerics
//! Logits in f32. `exp` is summed in f32 within a block and in f64 over blocks; losses in f64, rounded once. With
//! bf16 the second product takes `exp` rounded to bf16, relative to the largest logit, which counts exactly 1;
//! `W[target]` is subtracted in f32. Each row sees the vocabulary in rising order, so bits do not depend on threads.
//!
//! # Limits
//! With `n` rows with targets, `2 n hidden vocab` FLOP for the loss and as many for the gradient; SmolLM2-135M's
//! head (49152 x 576) and 2048 rows: 232 GFLOP. Bytes: the head once; for each block of 512 rows of it the rows'
//! bf16 `h` (2.4 MB there) and the f32 sums in and out (9.4 MB), which come from an outer cache: 1.1 GB in
//! all, 5 bytes a kFLOP, fetched while the matrix unit is busy. `exp` takes 17 vector instructions for 16 logits
//! beside `4 hidden` FLOP each.
//!
//! # Source
//! Dao et al., FlashAttention (2022), arXiv:2205.14135, section 3.1, for the sweep; Hsu et al., Liger Kernel (2024),
//! arXiv:2410.10989, section 3.2, for the gradient in it.

mod autodiff;
mod cpu;
#[cfg(feature = "cube")]
mod cubecl;
pub mod reference;
mod sweep;
#[cfg(feature = "tensor-cores")]
pub mod tensor_core;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::flex::{contiguous, slice, tensor};
use crate::frozen::FrozenWeight;
use crate::isa;

pub use sweep::{BORDER, RowSum, Sweep};

/// The backend's side of the op.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cube"))]
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
