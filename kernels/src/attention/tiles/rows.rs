//! Between rows of a head in memory and the sums of column tiles.

use std::arch::x86_64::{
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512,
};

use super::lanes::{PerQuery, add, in_column_order, load, multiply, query_of_column};
use super::{BLOCK, LINE_F32};
use crate::amx::LANES;
use crate::amx::pack::transposed;

/// Writes `[width, 32]` sums times a factor as rows of the queries, `stride` apart.
///
/// # Safety
/// `sums` may be read at `width` rows of 32, rounded up to 16, and `out` be written at `queries` rows of `width`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn store_rows(
    sums: *const f32,
    width: usize,
    factor: PerQuery,
    queries: usize,
    out: *mut f32,
    stride: usize,
) {
    let factor = in_column_order(factor);
    for start in (0..width).step_by(LINE_F32) {
        let mask = ((1u32 << (width - start).min(LINE_F32)) - 1) as u16;
        for tile in 0..2 {
            let mut lines = [_mm512_setzero_si512(); LANES];
            for row in 0..LANES {
                // SAFETY: as the caller vouches.
                let x = unsafe { _mm512_loadu_ps(sums.add((start + row) * BLOCK + tile * LANES)) };
                lines[row] = _mm512_castps_si512(_mm512_mul_ps(x, factor[tile]));
            }
            let lines = transposed(&lines);
            for column in 0..LANES {
                let query = query_of_column(tile, column);
                if query < queries {
                    // SAFETY: as the caller vouches; lanes beyond the row are masked.
                    unsafe {
                        let at = out.add(query * stride + start);
                        _mm512_mask_storeu_ps(at, mask, _mm512_castsi512_ps(lines[column]));
                    }
                }
            }
        }
    }
}

/// Computes `sum_i a[i] * b[i]` of one head.
///
/// # Safety
/// Both may be read at `len` elements.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) unsafe fn dot(a: *const f32, b: *const f32, len: usize) -> f32 {
    let mut sum = _mm512_setzero_ps();
    for start in (0..len).step_by(LINE_F32) {
        let mask = ((1u32 << (len - start).min(LINE_F32)) - 1) as u16;
        // SAFETY: as the caller vouches; lanes beyond are masked.
        let (a, b) =
            unsafe { (_mm512_maskz_loadu_ps(mask, a.add(start)), _mm512_maskz_loadu_ps(mask, b.add(start))) };
        sum = _mm512_fmadd_ps(a, b, sum);
    }
    _mm512_reduce_add_ps(sum)
}

/// Writes the sum of rows of up to 32, times a factor.
///
/// # Safety
/// Each of `rows` may be read at 32 elements, from a cache line on, and `out` be written at `width`, at most 32.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) unsafe fn store_sum(
    rows: impl Iterator<Item = *const f32>,
    factor: f32,
    out: *mut f32,
    width: usize,
) {
    let mut sum = [_mm512_setzero_ps(); 2];
    for row in rows {
        // SAFETY: as the caller vouches.
        sum = add(sum, unsafe { load(row) });
    }
    let sum = multiply(sum, [_mm512_set1_ps(factor); 2]);
    let mask = ((1u64 << width) - 1) as u32;
    // SAFETY: as the caller vouches; lanes beyond the row are masked.
    unsafe {
        _mm512_mask_storeu_ps(out, mask as u16, sum[0]);
        _mm512_mask_storeu_ps(out.wrapping_add(LANES), (mask >> 16) as u16, sum[1]);
    }
}
