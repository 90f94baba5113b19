//! The element-wise loops on tiles of scores, 16 queries to a register.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _CMP_NEQ_UQ, _mm512_add_epi32, _mm512_add_ps, _mm512_cmp_ps_mask,
    _mm512_cmpgt_epi32_mask, _mm512_cmplt_epi32_mask, _mm512_cvtne2ps_pbh, _mm512_fmadd_ps, _mm512_fmsub_ps,
    _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_ps,
    _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps,
    _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps, _mm512_unpackhi_epi16,
    _mm512_unpacklo_epi16,
};
use std::mem::transmute;

use super::fetch::Fetch;
use super::{BLOCK, SCORES};
use crate::amx::{DEPTH, LANES};
use crate::vector::tanh;

/// One value for each of the 32 queries of a column tile.
pub(super) type PerQuery = [__m512; 2];

/// Computes `2^x`: `2^floor(x)` times a polynomial in the rest; exact at 0, 0 at minus infinity, NaN kept.
///
/// The polynomial of degree 4 has a relative error of 2.9e-6 (minimax fit with constant term 1).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) fn exp2(x: __m512) -> __m512 {
    let rest = _mm512_reduce_ps::<1>(x);
    let mut p = _mm512_set1_ps(0.013_426_685);
    for coefficient in [0.052_242_473, 0.241_280_21, 0.693_044_84, 1.0] {
        p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(coefficient));
    }
    _mm512_scalef_ps(p, x)
}

/// Bounds scores to `cap tanh(scale s / cap)`.
///
/// # Safety
/// `scores` may be read and written at [`SCORES`] elements.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")]
pub(super) unsafe fn cap_scores(scores: *mut f32, scale: f32, cap: f32) {
    // SAFETY: as the caller vouches.
    let scores = unsafe { std::slice::from_raw_parts_mut(scores, SCORES) };
    for s in scores {
        *s = cap * tanh::<true>(*s * scale / cap);
    }
}

/// Sets the scores of keys from `key` on that queries from `query` on do not see to minus infinity.
///
/// # Safety
/// `scores` may be written at [`SCORES`] elements.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn hide(scores: *mut f32, query: usize, key: usize, window: Option<usize>) {
    let hidden = _mm512_set1_ps(f32::NEG_INFINITY);
    // Counted from `query` on; a window that long hides nothing in any tile that is visited.
    let window = window.unwrap_or(usize::MAX).min(1 << 30) as i32;
    let ahead = (query as i64 - key as i64) as i32;
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for half in 0..2 {
        let distance = _mm512_add_epi32(lanes, _mm512_set1_epi32(ahead + (half * LANES) as i32));
        for j in 0..BLOCK {
            let key = _mm512_set1_epi32(j as i32);
            let later = _mm512_cmpgt_epi32_mask(key, distance);
            let first = _mm512_add_epi32(key, _mm512_set1_epi32(window - 1));
            let past = _mm512_cmplt_epi32_mask(first, distance);
            // SAFETY: as the caller vouches.
            unsafe { _mm512_mask_storeu_ps(scores.add(j * BLOCK + half * LANES), later | past, hidden) };
        }
    }
}

/// The state of the online softmax of one column tile, in powers of two.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    pub(super) max: PerQuery,
    pub(super) sum: PerQuery,
}

impl Softmax {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    #[inline]
    pub(super) fn new() -> Self {
        // Not minus infinity: a query may see no key of the first blocks, and then subtracts this from one.
        Self { max: [_mm512_set1_ps(f32::MIN); 2], sum: [_mm512_setzero_ps(); 2] }
    }

    /// Turns raw scores of `keys` keys into probabilities relative to the new maximum, as right tiles with
    /// `k` along the keys; returns what earlier sums have to be multiplied by, or none if by 1.
    ///
    /// Fetches what is first written, then read. The columns of `p` are in the order of [`query_of_column`].
    ///
    /// # Safety
    /// `scores` may be read at `keys` rows of 32, a multiple of 32; each `p` may be written at as many / 32
    /// tiles.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    #[inline]
    pub(super) unsafe fn step(
        &mut self,
        scores: *const f32,
        keys: usize,
        factor: f32,
        p: [*mut u16; 2],
        fetch: &mut [Fetch; 2],
    ) -> Option<PerQuery> {
        let factor = _mm512_set1_ps(factor);
        // SAFETY: as the caller vouches.
        let highest = unsafe { column_maxima(scores, keys) };
        let highest = multiply(highest, [factor; 2]);
        let max = [_mm512_max_ps(self.max[0], highest[0]), _mm512_max_ps(self.max[1], highest[1])];
        let (mut even_sum, mut odd_sum) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
        for pair in 0..keys / 2 {
            fetch[0].write();
            fetch[1].read();
            // SAFETY: as the caller vouches.
            unsafe {
                let at = scores.add(2 * pair * BLOCK);
                let even = powers(load(at), factor, max);
                let odd = powers(load(at.add(BLOCK)), factor, max);
                even_sum = add(even_sum, even);
                odd_sum = add(odd_sum, odd);
                store_pair([narrow(even), narrow(odd)], p, pair);
            }
        }
        let old = subtract(self.max, max);
        let old = [exp2(old[0]), exp2(old[1])];
        self.sum = add(multiply(self.sum, old), add(even_sum, odd_sum));
        self.max = max;
        let one = _mm512_set1_ps(1.0);
        let moved =
            _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(old[0], one) | _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(old[1], one);
        (moved != 0).then_some(old)
    }
}

/// The largest score of each query; a NaN counts as nothing.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
unsafe fn column_maxima(scores: *const f32, keys: usize) -> PerQuery {
    let least = _mm512_set1_ps(f32::NEG_INFINITY);
    // Four chains for each half, to hide the latency of a maximum.
    let (mut a, mut b, mut c, mut d) = ([least; 2], [least; 2], [least; 2], [least; 2]);
    for j in (0..keys * BLOCK).step_by(4 * BLOCK) {
        // SAFETY: as the caller vouches.
        unsafe {
            a = larger(scores.add(j), a);
            b = larger(scores.add(j + BLOCK), b);
            c = larger(scores.add(j + 2 * BLOCK), c);
            d = larger(scores.add(j + 3 * BLOCK), d);
        }
    }
    [
        _mm512_max_ps(_mm512_max_ps(a[0], b[0]), _mm512_max_ps(c[0], d[0])),
        _mm512_max_ps(_mm512_max_ps(a[1], b[1]), _mm512_max_ps(c[1], d[1])),
    ]
}

/// The larger of the scores of one key and others; the others where a score is NaN.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
unsafe fn larger(scores: *const f32, than: PerQuery) -> PerQuery {
    // SAFETY: the caller vouches for a row of 32.
    let s = unsafe { load(scores) };
    [_mm512_max_ps(s[0], than[0]), _mm512_max_ps(s[1], than[1])]
}

/// Reads one value for each query.
///
/// # Safety
/// `values` may be read at 32 elements.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) unsafe fn load(values: *const f32) -> PerQuery {
    // SAFETY: as the caller vouches.
    unsafe { [_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(LANES))] }
}

/// Computes `2^(factor s - less)`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
fn powers(s: PerQuery, factor: __m512, less: PerQuery) -> PerQuery {
    [exp2(_mm512_fmsub_ps(s[0], factor, less[0])), exp2(_mm512_fmsub_ps(s[1], factor, less[1]))]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) fn add(a: PerQuery, b: PerQuery) -> PerQuery {
    [_mm512_add_ps(a[0], b[0]), _mm512_add_ps(a[1], b[1])]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) fn multiply(a: PerQuery, b: PerQuery) -> PerQuery {
    [_mm512_mul_ps(a[0], b[0]), _mm512_mul_ps(a[1], b[1])]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
fn subtract(a: PerQuery, b: PerQuery) -> PerQuery {
    [_mm512_sub_ps(a[0], b[0]), _mm512_sub_ps(a[1], b[1])]
}

/// Rounds the values of one key to bf16: a line of a left tile with `k` along the queries.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) fn narrow(row: PerQuery) -> __m512i {
    // SAFETY: both are 64 bytes of any bits.
    unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(row[1], row[0])) }
}

/// Stores two keys as line `pair` of two right tiles with `k` along the keys.
///
/// # Safety
/// Both tiles may be written at the line.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) unsafe fn store_pair([even, odd]: [__m512i; 2], out: [*mut u16; 2], pair: usize) {
    // SAFETY: as the caller vouches.
    unsafe {
        _mm512_storeu_si512(out[0].add(pair * DEPTH).cast(), _mm512_unpacklo_epi16(even, odd));
        _mm512_storeu_si512(out[1].add(pair * DEPTH).cast(), _mm512_unpackhi_epi16(even, odd));
    }
}

/// Returns which of 32 queries column `column` of tile `tile` holds after [`store_pair`].
pub(super) fn query_of_column(tile: usize, column: usize) -> usize {
    column / 4 * 8 + tile * 4 + column % 4
}

/// Puts values in the order of [`query_of_column`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) fn in_column_order(x: PerQuery) -> PerQuery {
    // Lane `l` of 128 bits of both is queries `4 l ..` and `16 + 4 l ..`: even ones first, then odd ones.
    [_mm512_shuffle_f32x4::<0x88>(x[0], x[1]), _mm512_shuffle_f32x4::<0xdd>(x[0], x[1])]
}

/// Multiplies the columns of `[rows, 32]` sums, in the order of [`query_of_column`].
///
/// # Safety
/// `sums` may be read and written at `rows` rows of 32.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) unsafe fn scale_columns(sums: *mut f32, rows: usize, factor: PerQuery) {
    let factor = in_column_order(factor);
    for row in 0..rows {
        // SAFETY: as the caller vouches.
        unsafe {
            let at = sums.add(row * BLOCK);
            let scaled = multiply(load(at), factor);
            _mm512_storeu_ps(at, scaled[0]);
            _mm512_storeu_ps(at.add(LANES), scaled[1]);
        }
    }
}

/// Where the gradient step of one tile of scores goes: lines of bf16.
#[derive(Clone, Copy)]
pub(super) struct GradientOut {
    /// `P^T` as two left tiles, `k` along the queries.
    pub(super) p: [*mut u16; 2],
    /// `dS^T` likewise.
    pub(super) ds: [*mut u16; 2],
    /// `dS^T` as two right tiles, `k` along the keys, columns in the order of [`query_of_column`].
    pub(super) ds_right: [*mut u16; 2],
}

/// Turns raw scores (or, if `CAPPED`, capped ones) and `dP^T` of 32 keys into `P^T` and `dS^T`.
///
/// `factor` goes from scores to powers of two, `lse` is in powers of two; `dS` lacks the factor `scale`.
/// Fetches what is first written, then read.
///
/// # Safety
/// `scores` and `d` may be read at [`SCORES`] elements, and `out` be written at a tile each.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) unsafe fn gradient_step<const CAPPED: bool>(
    scores: *const f32,
    d: *const f32,
    factor: f32,
    cap: f32,
    [lse, delta]: [PerQuery; 2],
    out: GradientOut,
    fetch: &mut [Fetch; 4],
) {
    let factor = _mm512_set1_ps(factor);
    for tile in 0..2 {
        for line in (0..LANES).step_by(2) {
            let at = (tile * LANES + line) * BLOCK;
            fetch[0].write();
            (1..4).for_each(|n| fetch[n].read());
            // SAFETY: as the caller vouches.
            unsafe {
                let (s_even, s_odd) = (load(scores.add(at)), load(scores.add(at + BLOCK)));
                let (even, odd) = (powers(s_even, factor, lse), powers(s_odd, factor, lse));
                let mut ds_even = multiply(even, subtract(load(d.add(at)), delta));
                let mut ds_odd = multiply(odd, subtract(load(d.add(at + BLOCK)), delta));
                if CAPPED {
                    ds_even = multiply(ds_even, [slope(s_even[0], cap), slope(s_even[1], cap)]);
                    ds_odd = multiply(ds_odd, [slope(s_odd[0], cap), slope(s_odd[1], cap)]);
                }
                let ds = [narrow(ds_even), narrow(ds_odd)];
                _mm512_storeu_si512(out.p[tile].add(line * DEPTH).cast(), narrow(even));
                _mm512_storeu_si512(out.p[tile].add((line + 1) * DEPTH).cast(), narrow(odd));
                _mm512_storeu_si512(out.ds[tile].add(line * DEPTH).cast(), ds[0]);
                _mm512_storeu_si512(out.ds[tile].add((line + 1) * DEPTH).cast(), ds[1]);
                store_pair(ds, out.ds_right, tile * LANES / 2 + line / 2);
            }
        }
    }
}

/// The derivative of the cap from the capped score: `1 - (s / cap)^2`, and 0 where the score is hidden.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
fn slope(capped: __m512, cap: f32) -> __m512 {
    let x = _mm512_mul_ps(capped, _mm512_set1_ps(1.0 / cap));
    _mm512_max_ps(_mm512_fnmadd_ps(x, x, _mm512_set1_ps(1.0)), _mm512_setzero_ps())
}
