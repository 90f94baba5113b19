//! Matrices of any storage, read as bf16, 32 elements at a time.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm_loadu_si128, _mm512_broadcast_i64x4, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_or_si512,
    _mm512_permutexvar_epi16, _mm512_set1_ps, _mm512_slli_epi32, _mm512_srli_epi32,
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

/// Evaluates `$body` with `$rows` standing for the rows of a frozen weight, whatever it is stored as.
macro_rules! with_rows {
    ($weight:expr, |$rows:ident| $body:expr) => {{
        let weight: &$crate::frozen::FrozenWeight = $weight;
        let width = weight.shape()[1];
        let stored = weight.storage();
        match &*stored {
            $crate::frozen::Storage::F32(data) => {
                let $rows = $crate::amx::rows::F32Rows { data, stride: width, width };
                $body
            }
            $crate::frozen::Storage::Bf16(data) => {
                let $rows = $crate::amx::rows::Bf16Rows { data, width };
                $body
            }
            $crate::frozen::Storage::Nf4(nf4) => match $crate::amx::rows::Nf4Rows::new(nf4) {
                Some($rows) => $body,
                None => {
                    let $rows = $crate::amx::rows::ReadRows(weight);
                    $body
                }
            },
            $crate::frozen::Storage::Int8(int8) => match $crate::amx::rows::Int8Rows::new(int8) {
                Some($rows) => $body,
                None => {
                    let $rows = $crate::amx::rows::ReadRows(weight);
                    $body
                }
            },
            #[cfg(feature = "cube")]
            $crate::frozen::Storage::Device(_) => unreachable!("the CPU's ops take host weights"),
        }
    }};
}
pub(crate) use with_rows;
