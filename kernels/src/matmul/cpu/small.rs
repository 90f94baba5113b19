//! Products of operands that lie in the first caches, on the calling thread, without packing.

#[cfg(target_arch = "x86_64")]
use super::vector::Block;
#[cfg(target_arch = "x86_64")]
use super::x86::{avx2, avx512};
use crate::isa::{PORTABLE_FMA, Tier, fma};
use crate::matmul::Mode;

/// The left operand of a small product, `m` x `k`.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// `a[i, p]` at `i * stride + p`.
    Rows(&'a [f32], usize),
    /// `a[i, p]` at `p * stride + i`.
    Columns(&'a [f32], usize),
}

/// Computes `c = a b` or `c += a b` for `[m, n]`, `[m, k]` and `[k, n]`; `b` and `c` have rows of `n`, a multiple of 16.
///
/// Each element is one chain of additions in the order of `k`, whatever the tile shape.
///
/// # Panics
/// When an operand is too short, or `n` is no multiple of 16.
pub(crate) fn small_product(
    tier: Tier,
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    [m, n, k]: [usize; 3],
    mode: Mode,
) {
    assert!(tier.is_available(), "tier `{}` asked for without a check", tier.name());
    assert!(n.is_multiple_of(16) && b.len() >= k * n && c.len() >= m * n, "`small_product`: sizes disagree");
    let needed = match a {
        _ if m == 0 || k == 0 => 0,
        Left::Rows(_, stride) => (m - 1) * stride + k,
        Left::Columns(_, stride) => (k - 1) * stride + m,
    };
    let (Left::Rows(values, _) | Left::Columns(values, _)) = a;
    assert!(values.len() >= needed, "`small_product`: the left operand is too short");
    match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Amx | Tier::Avx512 => {
            // Two by two is faster than three and one.
            let take =
                |vectors: usize| if vectors == 4 { 2 } else { vectors.min(avx512::COLS / avx512::LANES) };
            let kernel = if matches!(a, Left::Rows(..)) { avx512::strided } else { avx512::columns };
            // SAFETY: the lengths were checked, and so was the tier.
            unsafe { sweep(kernel, [avx512::ROWS, avx512::LANES], take, a, b, c, [m, n, k], mode) }
        }
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => {
            let take = |vectors: usize| vectors.min(avx2::COLS / avx2::LANES);
            let kernel = if matches!(a, Left::Rows(..)) { avx2::strided } else { avx2::columns };
            // SAFETY: as above.
            unsafe { sweep(kernel, [avx2::ROWS, avx2::LANES], take, a, b, c, [m, n, k], mode) }
        }
        _ => portable(a, b, c, [m, n, k], mode),
    }
}

/// Covers `c` with tiles of `rows` by as many vectors of `lanes` as `take` says of those that are left.
///
/// # Safety
/// The operands hold what the sizes say, and the kernel's instructions exist.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn sweep(
    kernel: unsafe fn(Block),
    [rows, lanes]: [usize; 2],
    take: impl Fn(usize) -> usize,
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    [m, n, k]: [usize; 3],
    mode: Mode,
) {
    let (values, lda, next_row) = match a {
        Left::Rows(values, stride) => (values, stride, stride),
        Left::Columns(values, stride) => (values, stride, 1),
    };
    let mut j = 0;
    while j < n {
        let cols = take((n - j) / lanes) * lanes;
        for i in (0..m).step_by(rows) {
            let block = Block {
                rows: rows.min(m - i),
                cols,
                k,
                a: values.as_ptr().wrapping_add(i * next_row),
                lda,
                b: b.as_ptr().wrapping_add(j),
                ldb: n,
                c: c.as_mut_ptr().wrapping_add(i * n + j),
                ldc: n,
                add: mode == Mode::Add,
                ahead: std::ptr::null(),
            };
            // SAFETY: the tile lies in the operands, as the caller vouches.
            unsafe { kernel(block) };
        }
        j += cols;
    }
}

/// Plain Rust, four columns at a time.
fn portable(a: Left<'_>, b: &[f32], c: &mut [f32], [m, n, k]: [usize; 3], mode: Mode) {
    const ROWS: usize = 4;
    const LANES: usize = 8;
    for j in (0..n).step_by(LANES) {
        for i in (0..m).step_by(ROWS) {
            let rows = ROWS.min(m - i);
            let mut sums = [[0.0f32; LANES]; ROWS];
            if mode == Mode::Add {
                for (r, sums) in sums.iter_mut().enumerate().take(rows) {
                    sums.copy_from_slice(&c[(i + r) * n + j..][..LANES]);
                }
            }
            for p in 0..k {
                let b: &[f32] = &b[p * n + j..][..LANES];
                for (r, sums) in sums.iter_mut().enumerate().take(rows) {
                    let x = match a {
                        Left::Rows(a, stride) => a[(i + r) * stride + p],
                        Left::Columns(a, stride) => a[p * stride + i + r],
                    };
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = fma::<PORTABLE_FMA>(x, *b, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate().take(rows) {
                c[(i + r) * n + j..][..LANES].copy_from_slice(sums);
            }
        }
    }
}
