//! The definition of row-wise int8, one row at a time.

/// 1/127 as bitsandbytes writes it.
pub(crate) const RECIPROCAL: f32 = 7.874_016e-3;

/// Quantizes one row into `codes` and returns its scale.
#[inline(always)]
pub fn quantize_row(row: &[f32], codes: &mut [i8]) -> f32 {
    let absmax = row.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    let scale = 127.0 / absmax;
    for (code, value) in codes.iter_mut().zip(row) {
        // A row of zeros gives 0 * inf, which converts to 0.
        *code = (value * scale).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    absmax
}

/// Dequantizes one row: two products in f32, in this order.
pub fn dequantize_row(codes: &[i8], absmax: f32, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = f32::from(code) * absmax * RECIPROCAL;
    }
}
