//! `a + b` of two matrices, on all threads, in the place of `a` where no one else holds it.
//!
//! For gradients that meet where a residual branches off. Burn's own addition takes one thread below four million
//! elements, and a stream of 2048 tokens by 576 has one.
//!
//! # Limits
//! Memory: 12 bytes an element.

#[cfg(feature = "cube")]
mod cubecl;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::flex::{contiguous, slice, slice_mut};

/// Elements that one task takes.
const CHUNK: usize = 1 << 14;

/// The backend's side of the op.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cube"))]
pub trait AddBackend: Backend {
    /// See [`add`].
    fn add(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Returns `a + b`; both are on an inner device, since the sum has no gradient.
///
/// # Panics
/// When the shapes differ.
pub fn add(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    assert_eq!(a.dims(), b.dims(), "`add`: two matrices have one shape");
    Tensor::from_dispatch(Dispatch::add(a.into_dispatch(), b.into_dispatch()))
}

impl AddBackend for Flex {
    fn add(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let (mut a, b) = (contiguous(a), contiguous(b));
        slice_mut(&mut a).par_chunks_mut(CHUNK).zip(slice(&b).par_chunks(CHUNK)).for_each(|(a, b)| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        });
        a
    }
}

impl<B: AddBackend, C: burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy> AddBackend
    for Autodiff<B, C>
{
    fn add(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("gradients are added on the inner backend")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn every_element_is_added_once_and_the_operands_stay() {
        for [rows, cols] in [[0, 3], [1, 1], [5, 123], [300, 129]] {
            let values = |factor: f32| (0..rows * cols).map(|i| i as f32 * factor).collect::<Vec<_>>();
            let matrix = |factor: f32| {
                Tensor::<2>::from_data(TensorData::new(values(factor), [rows, cols]), &Device::flex())
            };
            let (a, b) = (matrix(1.0), matrix(0.5));
            let sum: Vec<f32> = add(a.clone(), b).into_data().try_into_vec().expect("f32");
            assert_eq!(sum, values(1.5));
            assert_eq!(a.into_data().try_into_vec::<f32>().expect("f32"), values(1.0));
        }
    }
}
