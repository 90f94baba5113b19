//! Arithmetic that every tier compiles to its own vectors: `dot`, `exp`, `tanh`, `cos_sin`.
//!
//! The functions are `#[inline(always)]` bodies for [`tiered!`](crate::isa): simple loops over contiguous
//! slices, no branch on values. Reductions run in a fixed number of lanes and are folded as a tree, so a
//! tier changes the result only through fused multiply-add.

use crate::isa::fma;

/// Partial sums of a dot product: 2 AVX-512, 4 AVX2 or 8 SSE2 registers, enough to hide latency.
const LANES: usize = 32;

/// Computes `sum_i a[i] * b[i]` in [`LANES`] partial sums.
#[inline(always)]
pub(crate) fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] = fma::<FMA>(a[lane], b[lane], sums[lane]);
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum = fma::<FMA>(*a, *b, *sum);
    }
    fold(&mut sums)
}

/// Adds `LANES` partial sums as a binary tree.
#[inline(always)]
pub(crate) fn fold(sums: &mut [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

/// Computes `e^x` for every `x`: `x = n ln 2 + r`, a polynomial in `r`, two exact scalings by powers of two.
///
/// # Numerics
/// At most 1.1 units in the last place from the exact value over all normal results (measured by the test
/// below, with and without fused multiply-add); subnormal results, 0, infinity and NaN come out as such.
///
/// # Source
/// Cephes `expf` (S. Moshier): the polynomial of degree 5 and the split of ln 2.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // 1.5 * 2^23: adding it rounds to an integer that then sits in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Comparisons, not min and max: a NaN has to pass through.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let r = fma::<FMA>(-LN2_LOW, n, fma::<FMA>(-LN2_HIGH, n, x));
    let mut p = 1.987_569_1e-4;
    p = fma::<FMA>(p, r, 1.398_199_9e-3);
    p = fma::<FMA>(p, r, 8.333_452e-3);
    p = fma::<FMA>(p, r, 4.166_579_6e-2);
    p = fma::<FMA>(p, r, 1.666_666_5e-1);
    p = fma::<FMA>(p, r, 0.5);
    let e = fma::<FMA>(p, r * r, r) + 1.0;
    // 2^n in two steps: n reaches 128 and -150, beyond what one exponent field holds.
    let low = exponent >> 1;
    let high = exponent.wrapping_sub(low);
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    e * power(low) * power(high)
}

/// Computes `tanh x` for every `x`: a polynomial near 0, `1 - 2 / (e^(2|x|) + 1)` elsewhere.
///
/// # Numerics
/// Relative error at most 3e-7 (measured by the test below); NaN comes out as NaN.
///
/// # Source
/// Cephes `tanhf` (S. Moshier).
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    p = fma::<FMA>(p, z, 2.063_908_8e-2);
    p = fma::<FMA>(p, z, -5.373_971_5e-2);
    p = fma::<FMA>(p, z, 1.333_144_2e-1);
    p = fma::<FMA>(p, z, -3.333_328e-1);
    let near = fma::<FMA>(p * z, x, x);
    let far = (1.0 - 2.0 / (exp::<FMA>(2.0 * a) + 1.0)).copysign(x);
    if a < 0.625 { near } else { far }
}

/// Computes `[cos x, sin x]` for `|x|` up to 2^22: the quadrant is taken off in f64, then two polynomials in f64.
///
/// # Numerics
/// Within 0.501 units in the last place, so the nearest f32 but for near ties, and the same bits on every tier
/// (measured by the test below). Infinity and NaN come out as NaN; beyond 2^22, the result loses digits.
///
/// # Source
/// Cephes `sin` (S. Moshier): the polynomials and the split of pi / 2.
#[inline(always)]
pub(crate) fn cos_sin(x: f32) -> [f32; 2] {
    // 1.5 * 2^52: adding it rounds to an integer that then sits in the low mantissa bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const HALF_PI: [f64; 3] = [1.570_796_251_296_997, 7.549_789_415_861_596e-8, 5.390_302_858_158_306e-15];
    const SIN: [f64; 6] = [
        1.589_623_015_765_465_7e-10,
        -2.505_074_776_285_780_6e-8,
        2.755_731_362_138_572_4e-6,
        -1.984_126_982_958_954e-4,
        8.333_333_333_322_119e-3,
        -1.666_666_666_666_663e-1,
    ];
    const COS: [f64; 6] = [
        -1.135_853_652_138_768_2e-11,
        2.087_570_084_197_473_3e-9,
        -2.755_731_417_929_674e-7,
        2.480_158_728_885_170_4e-5,
        -1.388_888_888_887_305_6e-3,
        4.166_666_666_666_66e-2,
    ];
    let x = f64::from(x);
    let shifted = x * std::f64::consts::FRAC_2_PI + ROUND;
    let n = shifted - ROUND;
    let quadrant = shifted.to_bits();
    let r = ((x - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2];
    let z = r * r;
    let horner = |p: [f64; 6]| p[1..].iter().fold(p[0], |sum, p| sum * z + p);
    let sin = r + r * z * horner(SIN);
    let cos = 1.0 - 0.5 * z + z * z * horner(COS);
    let (c, s) = if quadrant & 1 == 0 { (cos, sin) } else { (sin, cos) };
    // Quadrants 1 and 2 turn the sign of the cosine, 2 and 3 that of the sine.
    let turned = |value: f64, bits: u64| f64::from_bits(value.to_bits() ^ ((bits & 2) << 62));
    [turned(c, quadrant + 1) as f32, turned(s, quadrant) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Tier, tiered};

    #[inline(always)]
    fn exp_all_body<const FMA: bool, const WIDTH: usize>(x: &mut [f32]) {
        for x in x {
            *x = exp::<FMA>(*x);
        }
    }
    tiered! { fn exp_all(x: &mut [f32]) = exp_all_body; }
    #[inline(always)]
    fn tanh_all_body<const FMA: bool, const WIDTH: usize>(x: &mut [f32]) {
        for x in x {
            *x = tanh::<FMA>(*x);
        }
    }
    tiered! { fn tanh_all(x: &mut [f32]) = tanh_all_body; }

    /// Every 1021st bit pattern of the finite floats, both signs.
    fn sweep() -> Vec<f32> {
        let positive = (0..0x7f80_0000u32).step_by(1021).map(f32::from_bits);
        positive.flat_map(|x| [x, -x]).collect()
    }

    #[test]
    fn exp_is_within_its_bound_everywhere() {
        for tier in Tier::available() {
            let x = sweep();
            let mut y = x.clone();
            exp_all(tier, &mut y);
            let mut worst = 0.0f64;
            for (&x, &y) in x.iter().zip(&y) {
                let exact = f64::from(x).exp();
                if exact > f64::from(f32::MAX) {
                    assert_eq!(y, f32::INFINITY, "exp({x})");
                } else if exact < f64::from(f32::MIN_POSITIVE) {
                    assert!((f64::from(y) - exact).abs() <= 3e-45, "exp({x}) = {y}");
                } else {
                    let ulp =
                        f64::from(f32::from_bits((exact as f32).to_bits() & 0x7f80_0000)) * 2f64.powi(-23);
                    worst = worst.max((f64::from(y) - exact).abs() / ulp);
                }
            }
            println!("exp on {}: {worst:.3} ulp", tier.name());
            assert!(worst <= 1.1, "{worst} ulp on {}", tier.name());
        }
    }

    #[test]
    fn tanh_is_within_its_bound_everywhere() {
        for tier in Tier::available() {
            let x = sweep();
            let mut y = x.clone();
            tanh_all(tier, &mut y);
            let relative = |(x, y): (&f32, &f32)| {
                let exact = f64::from(*x).tanh();
                if x.abs() < f32::MIN_POSITIVE { 0.0 } else { ((f64::from(*y) - exact) / exact).abs() }
            };
            let worst = x.iter().zip(&y).map(relative).fold(0.0, f64::max);
            println!("tanh on {}: {worst:.3e}", tier.name());
            assert!(worst <= 3e-7, "{worst:e} on {}", tier.name());
        }
    }

    #[inline(always)]
    fn cos_sin_all_body<const FMA: bool, const WIDTH: usize>(x: &[f32], y: &mut [[f32; 2]]) {
        for (x, y) in x.iter().zip(y) {
            *y = cos_sin(*x);
        }
    }
    tiered! { fn cos_sin_all(x: &[f32], y: &mut [[f32; 2]]) = cos_sin_all_body; }

    #[test]
    fn cosine_and_sine_are_within_their_bound_and_equal_on_every_tier() {
        let x: Vec<f32> = sweep().into_iter().filter(|x| x.abs() <= 4_194_304.0).collect();
        let mut first = Vec::new();
        for tier in Tier::available() {
            let mut y = vec![[0.0f32; 2]; x.len()];
            cos_sin_all(tier, &x, &mut y);
            let mut worst = 0.0f64;
            for (x, y) in x.iter().zip(&y) {
                let exact = [f64::from(*x).cos(), f64::from(*x).sin()];
                for (exact, y) in exact.into_iter().zip(y) {
                    let ulp = f64::from(f32::from_bits((exact as f32).to_bits() & 0x7f80_0000).max(1e-30))
                        * 2f64.powi(-23);
                    worst = worst.max((f64::from(*y) - exact).abs() / ulp);
                }
            }
            println!("cos_sin on {}: {worst:.4} ulp", tier.name());
            assert!(worst <= 0.501, "{worst} ulp on {}", tier.name());
            let bits = |y: &[[f32; 2]]| y.iter().flatten().map(|y| y.to_bits()).collect::<Vec<_>>();
            if first.is_empty() {
                first = bits(&y);
            }
            assert!(first == bits(&y), "{} differs", tier.name());
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(cos_sin(bad).iter().all(|y| y.is_nan()), "{bad}");
        }
        assert_eq!(cos_sin(0.0), [1.0, 0.0]);
    }

    #[test]
    fn special_values_pass_through() {
        for tier in Tier::available() {
            let mut y = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0];
            exp_all(tier, &mut y);
            assert!(y[0].is_nan());
            assert_eq!(y[1..], [f32::INFINITY, 0.0, 1.0, 1.0]);
            let mut y = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
            tanh_all(tier, &mut y);
            assert!(y[0].is_nan());
            assert_eq!(y[1..], [1.0, -1.0, 0.0]);
        }
    }

    #[test]
    fn dot_counts_every_element_once() {
        for n in [0, 1, 5, 31, 32, 33, 123] {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let expected: f32 = a.iter().map(|a| a * a).sum();
            assert_eq!(dot::<false>(&a, &a), expected, "n = {n}");
        }
    }
}
