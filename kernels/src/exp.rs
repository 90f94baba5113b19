//! An `exp` that the compiler can vectorise.

use crate::isa::fma;

/// Returns `e^x`, within 2 ulp of the exact value where the result is normal; below about -87.3 it is 0, above
/// 88.7 infinite, and NaN stays NaN.
///
/// Cody-Waite reduction to `|r| <= ln(2)/2`, then a polynomial of degree 6 in `r` (the coefficients are
/// Taylor's, nudged by the Cephes library's minimax fit of `expf`).
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer without a library call.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.336_54 { -87.336_54 } else { x };
    let clamped = if clamped > 88.722_83 { 88.722_83 } else { clamped };
    let n = fma::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND) - ROUND;
    let r = fma::<FMA>(n, -LN2_LOW, fma::<FMA>(n, -LN2_HIGH, clamped));
    let mut p = 1.987_569_1e-4;
    p = fma::<FMA>(p, r, 1.398_2e-3);
    p = fma::<FMA>(p, r, 8.333_452e-3);
    p = fma::<FMA>(p, r, 4.166_579_6e-2);
    p = fma::<FMA>(p, r, 1.666_666_5e-1);
    p = fma::<FMA>(p, r, 0.5);
    let e = fma::<FMA>(p * r, r, r) + 1.0;
    // Two factors, so that n = 128 does not overflow on the way to a finite result.
    let half = (n * 0.5) as i32;
    let rest = n as i32 - half;
    let power = |k: i32| f32::from_bits(((k + 127) << 23) as u32);
    let y = e * power(half) * power(rest);
    let y = if x < -87.336_54 { 0.0 } else { y };
    let y = if x > 88.722_83 { f32::INFINITY } else { y };
    if x.is_nan() { x } else { y }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn is_close_to_the_exact_value_everywhere() {
        let mut worst = 0.0f64;
        for i in -870_000..=887_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp::<true>(x)) / exact - 1.0).abs());
            worst = worst.max((f64::from(exp::<false>(x)) / exact - 1.0).abs());
        }
        // Measured 1.3e-7 (2 ulp would be 2.4e-7).
        assert!(worst < 2.4e-7, "relative error {worst:.2e}");
    }

    #[test]
    fn has_the_right_ends() {
        assert_eq!(exp::<true>(0.0), 1.0);
        assert_eq!(exp::<true>(-1e4), 0.0);
        assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<true>(1e4), f32::INFINITY);
        assert!(exp::<true>(f32::NAN).is_nan());
    }
}
