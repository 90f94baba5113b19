//! Flex tensors as plain `f32` slices and back, for the CPU side of every op.

use burn::tensor::TensorData;
use burn_flex::FlexTensor;

/// Makes a tensor whose elements lie in row order, so that [`slice`] can borrow them.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// Borrows the elements of a [`contiguous`] f32 tensor.
pub(crate) fn slice(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("activations are contiguous f32: `contiguous` ran, and ops take f32 only")
}

/// Borrows the elements of a [`contiguous`] f32 tensor to change them; they are copied first if another tensor
/// shares them.
pub(crate) fn slice_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let range = tensor.layout().contiguous_offsets().expect("`contiguous` ran");
    &mut tensor.storage_mut()[range.0..range.1]
}

/// Makes a tensor of `shape` from its elements in row order.
pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Makes a vector of `len` elements without clearing them: memory is slow, and a kernel writes them all.
///
/// # Safety
/// Every element is written before it is read.
#[expect(
    unsafe_code,
    clippy::uninit_vec,
    reason = "a pass over memory saved; the caller writes the elements"
)]
pub(crate) unsafe fn unwritten(len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    // SAFETY: the capacity is there, and the caller writes the elements first.
    unsafe { values.set_len(len) };
    values
}
