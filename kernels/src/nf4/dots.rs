//! Inner products of rows of a matrix with one vector, straight from the packed codes: generation's product.
//!
//! # Limits
//! A value takes 4.125 bits with double quantization, so that 10 GB/s of memory feed 19 values a nanosecond. In
//! AVX-512 a block of 64 values takes 4 shifts, 4 look-ups and 4 multiply-adds on two ports, and one product for
//! the scaled table (six instructions more where it is rounded to bf16): 6.5 to 9 cycles.

use super::{Absmax, Nf4};
use crate::isa::Tier;

/// Values that one step takes; they share a scale.
const CHUNK: usize = 64;

/// Scales that are decoded together.
const MAX_SCALES: usize = 1024;

/// A matrix and a vector that [`RowDots::compute`] multiplies.
pub(crate) struct RowDots<'a> {
    matrix: &'a Nf4,
    /// The vectors, in the order in which a chunk's codes come out of their bytes.
    vectors: Vec<Vec<f32>>,
    round: bool,
}

impl<'a> RowDots<'a> {
    /// Prepares products with `vectors`; `None` where the tier or the shape has no fast way.
    ///
    /// With `round`, each value is rounded to bf16 before it is multiplied.
    pub(crate) fn new(tier: Tier, matrix: &'a Nf4, vectors: &[&[f32]], round: bool) -> Option<Self> {
        let width = matrix.shape[1];
        let fits = width > 0 && width.is_multiple_of(CHUNK) && matrix.block_size.is_multiple_of(CHUNK);
        let few_scales = width / CHUNK <= MAX_SCALES;
        let fast = cfg!(target_arch = "x86_64") && tier != Tier::Avx2 && tier != Tier::Portable;
        (fits && few_scales && fast && tier.is_available()).then(|| {
            let vectors = vectors.iter().map(|vector| arrange(vector)).collect();
            Self { matrix, vectors, round }
        })
    }

    /// Multiplies the rows from `first` on with vector `which`.
    ///
    /// # Numerics
    /// Values are those of [`Nf4::dequantize`]. 64 partial sums, folded as a tree.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn compute(&self, which: usize, first: usize, out: &mut [f32]) {
        let chunks = self.matrix.shape[1] / CHUNK;
        let mut scales = [0.0; MAX_SCALES];
        let mut row = first;
        for out in out.chunks_mut((MAX_SCALES / chunks.max(1)).max(1)) {
            let scales = &mut scales[..out.len() * chunks];
            self.matrix.chunk_scales(row * chunks, scales);
            let packed = &self.matrix.packed[row * chunks * CHUNK / 2..][..scales.len() * CHUNK / 2];
            let vector = &self.vectors[which];
            #[expect(unsafe_code, reason = "calling code compiled for a checked instruction set")]
            // SAFETY: `new` found the tier available, which has every feature that the function enables.
            unsafe {
                if self.round {
                    avx512::dots::<true>(packed, scales, vector, out);
                } else {
                    avx512::dots::<false>(packed, scales, vector, out);
                }
            }
            row += out.len();
        }
    }

    /// There is none: `new` returns `None` here.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn compute(&self, _which: usize, _first: usize, _out: &mut [f32]) {
        unreachable!("no fast products of {:?} rounded {} on this machine", self.matrix.shape, self.round)
    }
}

/// Orders a vector as the codes of a chunk come out: lane `d` of the lower half of step `s` has the low nibble of
/// byte `4d + s`, which is the second of its pair; the upper half has the high ones.
fn arrange(vector: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(vector.len());
    for chunk in vector.as_chunks::<CHUNK>().0 {
        for step in 0..4 {
            for second in [1, 0] {
                out.extend((0..8).map(|lane| chunk[8 * lane + 2 * step + second]));
            }
        }
    }
    out
}

impl Nf4 {
    /// Decodes the scales of the chunks from the `first`-th on.
    #[cfg(target_arch = "x86_64")]
    fn chunk_scales(&self, first: usize, out: &mut [f32]) {
        let per_block = self.block_size / CHUNK;
        match &self.absmax {
            Absmax::Double { codes, nested_absmax, nested_block, offset, map } if per_block == 1 => {
                let (mut at, mut rest) = (first, out);
                while !rest.is_empty() {
                    let len = rest.len().min(nested_block - at % nested_block);
                    let (part, tail) = rest.split_at_mut(len);
                    let nested = nested_absmax[at / nested_block];
                    for (out, &code) in part.iter_mut().zip(&codes[at..]) {
                        *out = map[usize::from(code)] * nested + offset;
                    }
                    at += len;
                    rest = tail;
                }
            }
            _ => {
                for (chunk, out) in (first..).zip(out) {
                    *out = self.absmax_at(chunk / per_block);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    #![expect(unsafe_code, reason = "vectors are read from slices")]

    use std::arch::x86_64::{
        __m512, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps, _mm256_add_ps,
        _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_loadu_si256, _mm512_add_epi32, _mm512_add_ps,
        _mm512_and_si512, _mm512_broadcast_i64x4, _mm512_castps_si512, _mm512_castps512_ps256,
        _mm512_castsi512_ps, _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps,
        _mm512_permutexvar_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps,
        _mm512_srli_epi32, _mm512_srlv_epi32,
    };

    use super::super::CODE;
    use super::CHUNK;
    use crate::vector;

    /// Multiplies `out.len()` rows with the arranged vector `x`; one scale a chunk.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn dots<const ROUND: bool>(packed: &[u8], scales: &[f32], x: &[f32], out: &mut [f32]) {
        // SAFETY: the table is one vector.
        let code = unsafe { _mm512_loadu_ps(CODE.as_ptr()) };
        let shifts = [0, 8, 16, 24].map(|low| {
            let high = low + 4;
            _mm512_setr_epi32(
                low, low, low, low, low, low, low, low, high, high, high, high, high, high, high, high,
            )
        });
        let chunks = x.len() / CHUNK;
        let rows = packed.chunks_exact(x.len() / 2).zip(scales.chunks_exact(chunks));
        for ((packed, scales), out) in rows.zip(out) {
            let mut sums = [_mm512_setzero_ps(); 4];
            let pairs = packed.as_chunks::<{ CHUNK / 2 }>().0.iter().zip(x.as_chunks::<CHUNK>().0);
            for ((packed, x), &scale) in pairs.zip(scales) {
                vector::prefetch(packed.as_ptr());
                // SAFETY: the codes of a chunk are half a vector.
                let codes = unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(packed.as_ptr().cast())) };
                let table = _mm512_mul_ps(code, _mm512_set1_ps(scale));
                let table = if ROUND { rounded(table) } else { table };
                for step in 0..4 {
                    // A look-up takes the four lowest bits of each lane.
                    let values = _mm512_permutexvar_ps(_mm512_srlv_epi32(codes, shifts[step]), table);
                    // SAFETY: a chunk is four vectors.
                    let x = unsafe { _mm512_loadu_ps(x.as_ptr().add(16 * step)) };
                    sums[step] = _mm512_fmadd_ps(values, x, sums[step]);
                }
            }
            *out = fold(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
        }
    }

    /// Rounds finite values to bf16, ties to even.
    #[target_feature(enable = "avx512f")]
    fn rounded(values: __m512) -> __m512 {
        let bits = _mm512_castps_si512(values);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let bits = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(-0x1_0000)))
    }

    /// Adds the lanes as a binary tree.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2")]
    fn fold(sums: __m512) -> f32 {
        let eight = _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps::<1>(sums));
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}
