//! Operands of a product: matrices of f32 on the device, and frozen weights.

use burn_cubecl::tensor::CubeTensor;

use super::Side;
use crate::gpu::weight::{DeviceWeight, Kind};
use crate::gpu::{Words, dims, words};

/// A matrix of f32 on the device, or a window of one.
#[derive(Clone)]
pub(crate) struct Matrix {
    pub(super) words: Words,
    /// Elements before the first.
    pub(super) at: usize,
    /// Elements from one row to the next.
    pub(super) stride: usize,
}

impl Matrix {
    /// A whole contiguous matrix.
    pub(crate) fn whole(tensor: &CubeTensor) -> Self {
        Self::columns(tensor, 0)
    }

    /// The columns of a contiguous matrix from `column` on.
    pub(crate) fn columns(tensor: &CubeTensor, column: usize) -> Self {
        Self { words: words(tensor), at: column, stride: dims(tensor)[1] }
    }
}

/// The right operand of a product.
#[derive(Clone)]
pub(crate) struct Right {
    pub(super) kind: Kind,
    pub(super) codes: Words,
    pub(super) table: Words,
    pub(super) scale_codes_at: usize,
    /// Elements before the first of its row.
    pub(super) at: usize,
    pub(super) first_row: usize,
    /// Elements of a row.
    pub(super) width: usize,
    pub(super) is_weight: bool,
}

impl Right {
    /// Rows of a frozen weight of `width` columns, from `first_row` on.
    pub(crate) fn weight(weight: &DeviceWeight, width: usize, first_row: usize) -> Self {
        let DeviceWeight { kind, codes, table, scale_codes_at, .. } = weight.clone();
        Self { kind, codes, table, scale_codes_at, at: 0, first_row, width, is_weight: true }
    }

    /// A whole contiguous matrix of f32.
    pub(crate) fn dense(tensor: &CubeTensor) -> Self {
        Self::window(Matrix::whole(tensor))
    }

    /// A matrix of f32, or a window of one.
    pub(crate) fn window(matrix: Matrix) -> Self {
        let Matrix { words: codes, at, stride: width } = matrix;
        let table = codes.clone();
        Self { kind: Kind::F32, codes, table, scale_codes_at: 0, at, first_row: 0, width, is_weight: false }
    }
}

/// `left . right` with an inner axis of `depth`, added to the first product.
pub(super) struct Second {
    pub(super) left: Matrix,
    pub(super) right: Right,
    pub(super) side: Side,
    pub(super) depth: usize,
}
