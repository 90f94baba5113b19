//! What the CubeCL kernels of all ops share: buffers, frozen weights on a device, the tiled product.
//!
//! # Determinism
//! No kernel uses atomics, and every sum has one order that depends on shapes alone: a device gives the same bits in
//! every run. Two devices may differ (`exp`, division and contraction of `a * b + c` are theirs).

pub(crate) mod number;
pub(crate) mod product;
pub(crate) mod weight;

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::prelude::{BufferArg, CubeCount};
use burn_cubecl::cubecl::server::Handle;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Rows and columns of a matrix.
pub(crate) fn dims(tensor: &CubeTensor) -> [usize; 2] {
    let shape = tensor.meta.shape();
    [shape[0], shape[1]]
}

/// Makes a matrix whose elements are not set yet, where `like` is.
pub(crate) fn empty(like: &CubeTensor, shape: [usize; 2]) -> CubeTensor {
    let bytes = (shape[0] * shape[1] * 4).max(4);
    let handle = like.client.empty(bytes);
    let (client, device) = (like.client.clone(), like.device.clone());
    CubeTensor::new_contiguous(client, device, Shape::new(shape), handle, DType::F32)
}

/// Makes a vector whose elements are not set yet, where `like` is.
pub(crate) fn empty_vector(like: &CubeTensor, len: usize) -> CubeTensor {
    let handle = like.client.empty((len * 4).max(4));
    let (client, device) = (like.client.clone(), like.device.clone());
    CubeTensor::new_contiguous(client, device, Shape::new([len]), handle, DType::F32)
}

/// Brings the elements into row order.
pub(crate) fn contiguous(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// Words of four bytes on a device: `u32` or `f32`, as the kernel that reads them says. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) handle: Handle,
    pub(crate) len: usize,
}

impl Words {
    /// Copies words to the device; an empty list takes one word, since no binding is empty.
    pub(crate) fn upload<T: bytemuck::NoUninit>(client: &Client, words: &[T]) -> Self {
        const { assert!(size_of::<T>() == 4, "words have four bytes") };
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let handle = client.create_from_slice(if bytes.is_empty() { &[0; 4] } else { bytes });
        Self { handle, len: words.len().max(1) }
    }

    /// The words as a matrix of f32, where `like` is.
    pub(crate) fn tensor(self, like: &CubeTensor, shape: [usize; 2]) -> CubeTensor {
        let (client, device) = (like.client.clone(), like.device.clone());
        CubeTensor::new_contiguous(client, device, Shape::new(shape), self.handle, DType::F32)
    }

    /// The words as a kernel's argument.
    pub(crate) fn arg(&self) -> BufferArg {
        buffer(self.handle.clone(), self.len)
    }
}

/// The elements of a contiguous f32 tensor.
pub(crate) fn words(tensor: &CubeTensor) -> Words {
    let len = tensor.meta.shape().iter().product::<usize>();
    Words { handle: tensor.handle.clone(), len: len.max(1) }
}

/// The elements of a contiguous f32 tensor as a kernel's argument.
pub(crate) fn arg(tensor: &CubeTensor) -> BufferArg {
    words(tensor).arg()
}

#[expect(unsafe_code, reason = "how CubeCL binds a buffer")]
fn buffer(handle: Handle, len: usize) -> BufferArg {
    // SAFETY: every buffer here was made with room for so many words.
    unsafe { BufferArg::from_raw_parts(handle, len) }
}

/// At least so many cubes, in a grid that devices take (65535 a side).
pub(crate) fn cubes(count: usize) -> CubeCount {
    const SIDE: usize = 32768;
    CubeCount::Static(count.min(SIDE) as u32, count.div_ceil(SIDE) as u32, 1)
}
