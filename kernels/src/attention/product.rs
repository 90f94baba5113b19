//! Small matrix products in registers: `c += a b` on packed tiles.

use crate::isa::tiered;

/// The left operand of a product, `m` x `k`.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// `a[i, p]` at `i * stride + p`.
    Rows(&'a [f32], usize),
    /// `a[i, p]` at `p * stride + i`.
    Columns(&'a [f32], usize),
}

tiered! {
    /// Adds `a b` to `c`: `[m, n] += [m, k] [k, n]`; `b` and `c` have `n` columns, a multiple of 16.
    ///
    /// Each element is one chain of additions in the order of `k`, whatever the tile shape.
    pub(super) fn add_product(a: Left<'_>, b: &[f32], c: &mut [f32], m: usize, n: usize, k: usize) =
        add_product_body;
}

#[inline(always)]
fn add_product_body<const FMA: bool, const WIDTH: usize>(
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
) {
    // Registers for sums: 16 of 32 with AVX-512, 8 of 16 otherwise.
    match WIDTH {
        #[cfg(target_arch = "x86_64")]
        16 => sweep::<std::arch::x86_64::__m512, 8, 2>(a, b, c, m, n, k),
        #[cfg(target_arch = "x86_64")]
        8 => sweep::<std::arch::x86_64::__m256, 4, 2>(a, b, c, m, n, k),
        _ => sweep::<[f32; 4], 4, 2>(a, b, c, m, n, k),
    }
}

/// A vector register.
///
/// Explicit registers, since LLVM keeps sums that are plain arrays in memory and stores them at each step.
/// Safe to call only inside [`tiered!`] bodies of the register's width, which have its instructions.
trait Register: Copy {
    /// `f32` lanes.
    const LANES: usize;
    /// Reads the first lanes of `x`.
    fn load(x: &[f32]) -> Self;
    /// Writes the first lanes of `x`.
    fn store(self, x: &mut [f32]);
    /// Computes `a * b + self`.
    fn add_scaled(self, a: f32, b: Self) -> Self;
}

impl Register for [f32; 4] {
    const LANES: usize = 4;

    #[inline(always)]
    fn load(x: &[f32]) -> Self {
        [x[0], x[1], x[2], x[3]]
    }

    #[inline(always)]
    fn store(self, x: &mut [f32]) {
        x[..4].copy_from_slice(&self);
    }

    #[inline(always)]
    fn add_scaled(self, a: f32, b: Self) -> Self {
        let add = crate::isa::fma::<{ crate::isa::PORTABLE_FMA }>;
        [add(a, b[0], self[0]), add(a, b[1], self[1]), add(a, b[2], self[2]), add(a, b[3], self[3])]
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector intrinsics")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::Register;

    macro_rules! register {
        ($type:ident, $lanes:literal, $load:ident, $store:ident, $set:ident, $fma:ident) => {
            impl Register for $type {
                const LANES: usize = $lanes;

                #[inline(always)]
                fn load(x: &[f32]) -> Self {
                    let x = &x[..$lanes];
                    // SAFETY: `x` has all lanes; `tiered!` checked the processor for this width.
                    unsafe { $load(x.as_ptr()) }
                }

                #[inline(always)]
                fn store(self, x: &mut [f32]) {
                    let x = &mut x[..$lanes];
                    // SAFETY: `x` has all lanes; `tiered!` checked the processor for this width.
                    unsafe { $store(x.as_mut_ptr(), self) }
                }

                #[inline(always)]
                fn add_scaled(self, a: f32, b: Self) -> Self {
                    // SAFETY: `tiered!` checked the processor for this width.
                    unsafe { $fma($set(a), b, self) }
                }
            }
        };
    }
    register!(__m512, 16, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps);
    register!(__m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps);
}

/// Covers `c` with tiles of `MR` rows and `NV` registers; the rest goes row by row and register by register.
#[inline(always)]
fn sweep<V: Register, const MR: usize, const NV: usize>(
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
) {
    let full = m / MR * MR;
    let wide = n / (NV * V::LANES) * (NV * V::LANES);
    for j in (0..wide).step_by(NV * V::LANES) {
        (0..full).step_by(MR).for_each(|i| product_tile::<V, MR, NV>(a, b, c, (i, j), n, k));
        (full..m).for_each(|i| product_tile::<V, 1, NV>(a, b, c, (i, j), n, k));
    }
    for j in (wide..n).step_by(V::LANES) {
        (0..full).step_by(MR).for_each(|i| product_tile::<V, MR, 1>(a, b, c, (i, j), n, k));
        (full..m).for_each(|i| product_tile::<V, 1, 1>(a, b, c, (i, j), n, k));
    }
}

#[inline(always)]
fn product_tile<V: Register, const MR: usize, const NV: usize>(
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    (i, j): (usize, usize),
    n: usize,
    k: usize,
) {
    let mut sums: [[V; NV]; MR] =
        std::array::from_fn(|r| std::array::from_fn(|v| V::load(&c[(i + r) * n + j + v * V::LANES..])));
    let b = b.chunks_exact(n).map(|row| &row[j..j + NV * V::LANES]);
    match a {
        Left::Rows(a, stride) => {
            let rows: [&[f32]; MR] = std::array::from_fn(|r| &a[(i + r) * stride..][..k]);
            for (p, b) in (0..k).zip(b) {
                step(&mut sums, b, |r| rows[r][p]);
            }
        }
        Left::Columns(a, stride) => {
            let columns = a.chunks_exact(stride).map(|column| &column[i..i + MR]);
            for (column, b) in columns.zip(b).take(k) {
                step(&mut sums, b, |r| column[r]);
            }
        }
    }
    for r in 0..MR {
        for v in 0..NV {
            sums[r][v].store(&mut c[(i + r) * n + j + v * V::LANES..]);
        }
    }
}

#[inline(always)]
fn step<V: Register, const MR: usize, const NV: usize>(
    sums: &mut [[V; NV]; MR],
    b: &[f32],
    a: impl Fn(usize) -> f32,
) {
    let b: [V; NV] = std::array::from_fn(|v| V::load(&b[v * V::LANES..]));
    for r in 0..MR {
        let a = a(r);
        for v in 0..NV {
            sums[r][v] = sums[r][v].add_scaled(a, b[v]);
        }
    }
}
