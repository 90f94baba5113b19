//! Copies one head out of rows into contiguous scratch that tiles read, padded with zeros.

use std::ops::Range;

/// Queries in a tile and keys in a tile.
pub(super) const BLOCK: usize = 64;

/// Returns `head_dim` rounded up to a whole 512-bit vector: the row length of all scratch.
pub(super) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(16)
}

/// Copies columns of every row (of `width` elements), times `factor`, to `[rows, padded(head_dim)]`.
pub(super) fn rows(src: &[f32], width: usize, columns: Range<usize>, factor: f32) -> Vec<f32> {
    let stride = padded(columns.len());
    let mut out = vec![0.0; src.len() / width * stride];
    for (row, out) in src.chunks_exact(width).zip(out.chunks_exact_mut(stride)) {
        out.iter_mut().zip(&row[columns.clone()]).for_each(|(out, x)| *out = x * factor);
    }
    out
}

/// Copies columns of every row to blocks of [`BLOCK`] rows, transposed: `[blocks, padded(head_dim), BLOCK]`.
pub(super) fn transposed(src: &[f32], width: usize, columns: Range<usize>) -> Vec<f32> {
    let stride = padded(columns.len());
    let count = src.len() / width;
    let mut out = vec![0.0; count.div_ceil(BLOCK) * stride * BLOCK];
    for (rows, out) in src.chunks(BLOCK * width).zip(out.chunks_exact_mut(stride * BLOCK)) {
        for (j, row) in rows.chunks_exact(width).enumerate() {
            for (c, x) in row[columns.clone()].iter().enumerate() {
                out[c * BLOCK + j] = *x;
            }
        }
    }
    out
}

/// The rows of a segment in whatever has `width` elements a token.
pub(super) fn segment<'a>(src: &'a [f32], width: usize, ends: &[u32]) -> &'a [f32] {
    &src[ends[0] as usize * width..ends[1] as usize * width]
}
