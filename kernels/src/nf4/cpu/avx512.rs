//! NF4 blocks in 512-bit vectors: sixteen codes at once by binary search, the bounds held in registers.

#![expect(unsafe_code, reason = "vectors are read from and written to slices")]

use std::arch::x86_64::{
    __m512, __m512i, _CMP_NLE_UQ, _mm_storel_epi64, _mm512_cmp_ps_mask, _mm512_cvtepi64_epi8,
    _mm512_loadu_ps, _mm512_mask_or_epi32, _mm512_maskz_set1_epi32, _mm512_mul_ps, _mm512_or_si512,
    _mm512_permutexvar_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi64, _mm512_srli_epi64,
};

use super::super::BOUNDS;

/// Values of one vector.
const LANES: usize = 16;

/// As `super::quantize_blocks`: the same comparisons, four instead of fifteen for each value.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) fn quantize_blocks(values: &[f32], packed: &mut [u8], scales: &mut [f32], block_size: usize) {
    let tables = [0, 1, 3].map(|first| bounds_from(first));
    let blocks = values.chunks(block_size).zip(packed.chunks_mut(block_size / 2));
    for ((block, packed), scale) in blocks.zip(scales) {
        if block.len() < block_size {
            *scale = super::quantize_block(block, packed, false);
            continue;
        }
        let absmax = super::absmax(block);
        let divisor = if absmax < 1e-38 { 1e-38 } else { absmax };
        let reciprocal = _mm512_set1_ps(1.0 / divisor);
        let pairs = block.as_chunks::<LANES>().0.iter().zip(packed.as_chunks_mut::<{ LANES / 2 }>().0);
        for (values, packed) in pairs {
            // SAFETY: `values` are one vector.
            let values = unsafe { _mm512_loadu_ps(values.as_ptr()) };
            let codes = codes(_mm512_mul_ps(values, reciprocal), &tables);
            // Of two codes in a 64-bit lane, the first becomes the high nibble of its lowest byte.
            let bytes = _mm512_or_si512(_mm512_slli_epi64::<4>(codes), _mm512_srli_epi64::<32>(codes));
            // SAFETY: the lowest bytes of eight lanes are eight bytes, and `packed` holds as many.
            unsafe { _mm_storel_epi64(packed.as_mut_ptr().cast(), _mm512_cvtepi64_epi8(bytes)) };
        }
        *scale = absmax;
    }
}

/// Returns the bounds from the `first`-th on, so that a code that is known but for its lowest bits finds the
/// bound in the middle of what is left.
#[target_feature(enable = "avx512f")]
fn bounds_from(first: usize) -> __m512 {
    let mut table = [0.0f32; LANES];
    table[..BOUNDS.len() - first].copy_from_slice(&BOUNDS[first..]);
    // SAFETY: the array is one vector.
    unsafe { _mm512_loadu_ps(table.as_ptr()) }
}

/// Counts the bounds below each value, NaN above all, from the highest bit of the count to the lowest.
#[target_feature(enable = "avx512f")]
fn codes(scaled: __m512, [one, two, four]: &[__m512; 3]) -> __m512i {
    let middle = _mm512_set1_ps(BOUNDS[7]);
    let mut code = _mm512_maskz_set1_epi32(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(scaled, middle), 8);
    for (bit, table) in [(4, four), (2, two), (1, one)] {
        let bound = _mm512_permutexvar_ps(code, *table);
        let above = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(scaled, bound);
        code = _mm512_mask_or_epi32(code, above, code, _mm512_set1_epi32(bit));
    }
    code
}
