//! From rows to tiles of bf16.

use std::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_permutex2var_epi16, _mm512_setzero_si512, _mm512_shuffle_i32x4,
    _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};
use std::mem::transmute;

use super::rows::Rows;
use super::{DEPTH, LANES, TILE};

/// Packs rows `row ..` (up to 16, zero beyond `end`) and columns `col ..` as `k_tiles` left tiles.
///
/// # Safety
/// As [`Rows::load`]; `out` may be written at `k_tiles` tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) unsafe fn left<R: Rows>(
    rows: &R,
    row: usize,
    end: usize,
    col: usize,
    k_tiles: usize,
    out: *mut u16,
) {
    for lane in 0..LANES {
        for tile in 0..k_tiles {
            // SAFETY: as the caller vouches.
            unsafe {
                let values = if row + lane < end {
                    rows.load(row + lane, col + tile * DEPTH)
                } else {
                    _mm512_setzero_si512()
                };
                _mm512_storeu_si512(out.add(tile * TILE + lane * DEPTH).cast(), values);
            }
        }
    }
}

/// Packs rows `row ..` (up to 16, zero beyond `end`) as 16 columns of a right operand whose `k` runs along
/// the row: `k_tiles` tiles from column `col` on.
///
/// # Safety
/// As [`Rows::load`]; `out` may be written at `k_tiles` tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) unsafe fn right_from_columns<R: Rows>(
    rows: &R,
    row: usize,
    end: usize,
    col: usize,
    k_tiles: usize,
    out: *mut u16,
) {
    for tile in 0..k_tiles {
        let mut lines = [_mm512_setzero_si512(); LANES];
        if row + LANES <= end {
            // Without a branch for each row, so that the rows stay in registers.
            for lane in 0..LANES {
                // SAFETY: as the caller vouches.
                lines[lane] = unsafe { rows.load(row + lane, col + tile * DEPTH) };
            }
        } else {
            for lane in 0..end.saturating_sub(row) {
                // SAFETY: as the caller vouches.
                lines[lane] = unsafe { rows.load(row + lane, col + tile * DEPTH) };
            }
        }
        let lines = transposed(&lines);
        for pair in 0..LANES {
            // SAFETY: as the caller vouches.
            unsafe { _mm512_storeu_si512(out.add(tile * TILE + pair * DEPTH).cast(), lines[pair]) };
        }
    }
}

/// Packs columns `col .. col + 32` of a right operand whose `k` runs over the rows: `k_tiles` tiles of each
/// of two columns of tiles, from row `row` on, zero beyond `end`.
///
/// # Safety
/// As [`Rows::load`]; each `out` may be written at `k_tiles` tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) unsafe fn right_from_rows<R: Rows>(
    rows: &R,
    row: usize,
    end: usize,
    col: usize,
    k_tiles: usize,
    out: [*mut u16; 2],
) {
    // Which words of two rows side by side make a line of a tile: `a0 b0 a1 b1 ..`, first or second half.
    let interleave = |half: usize| {
        let words: [u16; 32] =
            std::array::from_fn(|i| (half * LANES + i / 2 + if i % 2 == 1 { 32 } else { 0 }) as u16);
        // SAFETY: both are 64 bytes.
        unsafe { transmute::<[u16; 32], __m512i>(words) }
    };
    let halves = [interleave(0), interleave(1)];
    let load = |row: usize| {
        // SAFETY: as the caller vouches.
        if row < end { unsafe { rows.load(row, col) } } else { _mm512_setzero_si512() }
    };
    for pair in 0..k_tiles * LANES {
        let (first, second) = (load(row + 2 * pair), load(row + 2 * pair + 1));
        for (out, half) in out.into_iter().zip(halves) {
            let line = _mm512_permutex2var_epi16(first, half, second);
            // SAFETY: as the caller vouches; a tile has 16 lines, so lines follow each other across tiles.
            unsafe { _mm512_storeu_si512(out.add(pair * DEPTH).cast(), line) };
        }
    }
}

/// Packs columns `col .. col + 32` as two rows of left tiles whose `k` runs over the rows: `k_tiles` tiles
/// each, from row `row` on, zero beyond `end`.
///
/// # Safety
/// As [`Rows::load`]; each `out` may be written at `k_tiles` tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) unsafe fn left_from_columns<R: Rows>(
    rows: &R,
    row: usize,
    end: usize,
    col: usize,
    k_tiles: usize,
    out: [*mut u16; 2],
) {
    // A line of a right tile is 16 columns of two rows: its transpose is a line of a left tile.
    // SAFETY: as the caller vouches.
    unsafe { right_from_rows(rows, row, end, col, k_tiles, out) };
    for tile in out.into_iter().flat_map(|out| (0..k_tiles).map(move |tile| out.wrapping_add(tile * TILE))) {
        let mut lines = [_mm512_setzero_si512(); LANES];
        // SAFETY: the tile was just written.
        unsafe {
            for pair in 0..LANES {
                lines[pair] = _mm512_loadu_si512(tile.add(pair * DEPTH).cast());
            }
            let lines = transposed(&lines);
            for lane in 0..LANES {
                _mm512_storeu_si512(tile.add(lane * DEPTH).cast(), lines[lane]);
            }
        }
    }
}

/// Transposes 16 x 16 words of 32 bits.
///
/// Straight-line code on few registers at a time: arrays that loops index stay in memory.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn transposed(rows: &[__m512i; LANES]) -> [__m512i; LANES] {
    let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15] = *rows;
    let [a0, a1, a2, a3] = transposed_lanes(r0, r1, r2, r3);
    let [b0, b1, b2, b3] = transposed_lanes(r4, r5, r6, r7);
    let [c0, c1, c2, c3] = transposed_lanes(r8, r9, r10, r11);
    let [d0, d1, d2, d3] = transposed_lanes(r12, r13, r14, r15);
    let [o0, o4, o8, o12] = transposed_blocks(a0, b0, c0, d0);
    let [o1, o5, o9, o13] = transposed_blocks(a1, b1, c1, d1);
    let [o2, o6, o10, o14] = transposed_blocks(a2, b2, c2, d2);
    let [o3, o7, o11, o15] = transposed_blocks(a3, b3, c3, d3);
    [o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, o14, o15]
}

/// Transposes the 4 x 4 words that four rows have in each lane of 128 bits.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed_lanes(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Transposes the 4 x 4 lanes of 128 bits of four rows.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed_blocks(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> [__m512i; 4] {
    let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
    let (cd_even, cd_odd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
    [
        _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even),
        _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd),
        _mm512_shuffle_i32x4::<0xdd>(ab_even, cd_even),
        _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd),
    ]
}
