//! From rows of any storage to tiles of bf16.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm_loadu_si128, _mm512_broadcast_i64x4, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_or_si512,
    _mm512_permutex2var_epi16, _mm512_permutexvar_epi16, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::mem::transmute;

use half::bf16;

use super::{DEPTH, LANES, TILE};
use crate::nf4::{self, Absmax, Nf4};

/// A matrix whose rows can be had as bf16, 32 elements at a time.
pub(crate) trait Rows {
    /// Returns elements `col .. col + 32` of a row, zero beyond the row's end.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, VL and BF16; `row` is in the matrix and `col` a multiple of 32 below
    /// its width.
    unsafe fn load(&self, row: usize, col: usize) -> __m512i;
}

/// Rows of f32.
#[derive(Clone, Copy)]
pub(crate) struct F32Rows<'a> {
    /// Elements, from the first row on.
    pub data: &'a [f32],
    /// Elements between two rows.
    pub stride: usize,
    /// Elements of a row.
    pub width: usize,
}

impl Rows for F32Rows<'_> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, col: usize) -> __m512i {
        debug_assert!(row * self.stride + self.width <= self.data.len(), "a row beyond the data");
        let count = self.width - col;
        // SAFETY: the row lies in `data`; lanes beyond it are masked.
        unsafe {
            let at = self.data.as_ptr().add(row * self.stride + col);
            if count >= DEPTH {
                return narrow(at);
            }
            let mask = low_lanes(count);
            let low = _mm512_maskz_loadu_ps(mask as u16, at);
            let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, at.wrapping_add(LANES));
            transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
        }
    }
}

/// Rows of bf16.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Rows<'a> {
    /// Elements, row after row.
    pub data: &'a [bf16],
    /// Elements of a row.
    pub width: usize,
}

impl Rows for Bf16Rows<'_> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, col: usize) -> __m512i {
        // SAFETY: the row lies in `data`; lanes beyond it are masked.
        unsafe {
            let at = self.data.as_ptr().add(row * self.width + col).cast::<i16>();
            if self.width - col >= DEPTH {
                return _mm512_loadu_si512(at.cast());
            }
            _mm512_maskz_loadu_epi16(low_lanes(self.width - col), at)
        }
    }
}

/// Rows of bitsandbytes' int8 whose width is a multiple of 32.
#[derive(Clone, Copy)]
pub(crate) struct Int8Rows<'a> {
    codes: &'a [i8],
    row_absmax: &'a [f32],
    width: usize,
}

impl<'a> Int8Rows<'a> {
    /// Returns a view of the matrix if its width allows.
    pub(crate) fn new(weight: &'a crate::int8::Int8) -> Option<Self> {
        let width = weight.shape[1];
        width.is_multiple_of(DEPTH).then_some(Self {
            codes: &weight.codes,
            row_absmax: &weight.row_absmax,
            width,
        })
    }
}

impl Rows for Int8Rows<'_> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, col: usize) -> __m512i {
        // SAFETY: 32 codes from `col` on lie in the row.
        unsafe {
            let at = self.codes.as_ptr().add(row * self.width + col);
            let absmax = _mm512_set1_ps(*self.row_absmax.get_unchecked(row));
            let reciprocal = _mm512_set1_ps(crate::int8::reference::RECIPROCAL);
            let widen = |at: *const i8| {
                let codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast())));
                _mm512_mul_ps(_mm512_mul_ps(codes, absmax), reciprocal)
            };
            transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(widen(at.add(LANES)), widen(at)))
        }
    }
}

/// Rows of NF4 whose width is a multiple of 32, so that 32 elements share one scale.
#[derive(Clone, Copy)]
pub(crate) struct Nf4Rows<'a> {
    packed: &'a [u8],
    scales: Scales<'a>,
    width: usize,
    block_shift: u32,
}

#[derive(Clone, Copy)]
enum Scales<'a> {
    Single(&'a [f32]),
    Double { codes: &'a [u8], nested: &'a [f32], nested_shift: u32, offset: f32, map: &'a [f32; 256] },
}

impl<'a> Nf4Rows<'a> {
    /// Returns a view of the matrix if its shape and blocks allow.
    pub(crate) fn new(weight: &'a Nf4) -> Option<Self> {
        let width = weight.shape[1];
        let scales = match &weight.absmax {
            Absmax::Single(absmax) => Scales::Single(absmax),
            Absmax::Double { codes, nested_absmax, nested_block, offset, map } => Scales::Double {
                codes,
                nested: nested_absmax,
                nested_shift: nested_block.is_power_of_two().then(|| nested_block.trailing_zeros())?,
                offset: *offset,
                map,
            },
        };
        let usable = width.is_multiple_of(DEPTH) && weight.block_size.is_power_of_two();
        let block_shift = weight.block_size.trailing_zeros();
        (usable && weight.block_size >= DEPTH).then_some(Self {
            packed: &weight.packed,
            scales,
            width,
            block_shift,
        })
    }

    /// The scale of block `index`.
    #[inline(always)]
    unsafe fn scale(&self, index: usize) -> f32 {
        // SAFETY: the caller's block is in the matrix, which was checked when it was made.
        unsafe {
            match self.scales {
                Scales::Single(absmax) => *absmax.get_unchecked(index),
                Scales::Double { codes, nested, nested_shift, offset, map } => {
                    let code = *codes.get_unchecked(index);
                    map[usize::from(code)] * *nested.get_unchecked(index >> nested_shift) + offset
                }
            }
        }
    }
}

impl Rows for Nf4Rows<'_> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, col: usize) -> __m512i {
        let start = row * self.width + col;
        // SAFETY: 32 codes from `col` on lie in the row, and in one block.
        unsafe {
            let scale = _mm512_set1_ps(self.scale(start >> self.block_shift));
            let values = _mm512_mul_ps(_mm512_loadu_ps(nf4::CODE.as_ptr()), scale);
            // The 16 values twice, so that the fifth bit of an index does not matter.
            let table = _mm512_broadcast_i64x4(transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values)));
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(self.packed.as_ptr().add(start / 2).cast()));
            // The first element of a pair is the high nibble.
            let index = _mm512_or_si512(_mm512_srli_epi32::<4>(bytes), _mm512_slli_epi32::<16>(bytes));
            _mm512_permutexvar_epi16(index, table)
        }
    }
}

/// Rows that were packed as left tiles.
#[derive(Clone, Copy)]
pub(crate) struct TileRows<'a> {
    /// `[rows / 16][k / 32]` tiles.
    pub tiles: &'a [u16],
    /// Tiles along a row.
    pub k_tiles: usize,
}

impl Rows for TileRows<'_> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, col: usize) -> __m512i {
        let tile = row / LANES * self.k_tiles + col / DEPTH;
        let at = &self.tiles[tile * TILE + row % LANES * DEPTH..][..DEPTH];
        // SAFETY: there are 32 elements.
        unsafe { _mm512_loadu_si512(at.as_ptr().cast()) }
    }
}

/// Any storage, read through f32.
#[derive(Clone, Copy)]
pub(crate) struct ReadRows<'a>(pub &'a crate::frozen::FrozenWeight);

impl Rows for ReadRows<'_> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, col: usize) -> __m512i {
        let width = self.0.shape()[1];
        let mut values = [0.0f32; DEPTH];
        self.0.read(row * width + col, &mut values[..DEPTH.min(width - col)]);
        // SAFETY: there are 32 values.
        unsafe { narrow(values.as_ptr()) }
    }
}

/// Rounds 32 consecutive f32 to bf16.
#[inline(always)]
unsafe fn narrow(at: *const f32) -> __m512i {
    // SAFETY: the caller vouches for 32 elements.
    unsafe {
        transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(
            _mm512_loadu_ps(at.add(LANES)),
            _mm512_loadu_ps(at),
        ))
    }
}

/// The mask of the first `count` of 32 lanes.
fn low_lanes(count: usize) -> u32 {
    if count >= 32 { u32::MAX } else { (1 << count) - 1 }
}

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
