//! `c = a . b`, `c += a . b`: the one matrix product under every op, in f32, on the CPU.
//!
//! `a` is `[m, k]` row-major. `b` is `[k, n]` and may be a dense matrix, its transpose, or a frozen weight in
//! any storage: it is unpacked into panels of `NR` columns just before use, so a quantized weight is never
//! dense in memory.
//!
//! # Numerics
//! Each `c[i][j]` is one chain of multiply-adds over `k` in rising order, in f32, starting at zero or at what is
//! there. Blocks of `k` carry the chain on, so the bits depend neither on the number of threads nor on block or
//! cache sizes, only on the tier (fused or not). One or two
//! rows of `a` against a transposed `b` (generation) are dot products instead, summed in a fixed number of lanes.

mod cpu;
mod operand;
pub mod reference;
#[cfg(test)]
mod tests;

pub(crate) use cpu::{FEW_ROWS, Left, Output, Segment, Start, Unit, VectorUnit, product, small_product};
#[cfg(target_arch = "x86_64")]
pub(crate) use cpu::{Pooled, TileUnit};
pub use operand::Operand;

use crate::isa;

/// A row-major view into a larger row-major matrix: `rows x cols`, `stride` elements between rows.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Elements, starting at the view's first one.
    pub data: &'a [f32],
    /// Elements between the starts of two rows.
    pub stride: usize,
}

/// Where a product goes: like [`View`], to be written.
pub struct ViewMut<'a> {
    /// Elements, starting at the view's first one.
    pub data: &'a mut [f32],
    /// Elements between the starts of two rows.
    pub stride: usize,
}

/// How a product meets what is in `c` already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `c = a . b`.
    Write,
    /// `c += a . b`: the chain of products starts at what is in `c`.
    Add,
}

/// Computes `c = a . b` or `c += a . b` on all threads of the current rayon pool.
///
/// # Shapes
/// - `a`: `[m, k]`, `b`: `[k, n]`, `c`: `[m, n]`
///
/// # Panics
/// When a view is too short for the given sizes, or `b` is not `[k, n]`.
pub fn matmul(m: usize, n: usize, k: usize, a: View, b: &Operand, c: ViewMut, mode: Mode) {
    assert_eq!(b.shape(), [k, n], "the right operand has another shape");
    if m == 0 || n == 0 {
        return;
    }
    assert!(k == 0 || a.data.len() >= (m - 1) * a.stride + k, "the left operand is too short");
    assert!(c.data.len() >= (m - 1) * c.stride + n, "the output is too short");
    cpu::matmul(isa::tier(), m, n, k, a, b, c, mode);
}
