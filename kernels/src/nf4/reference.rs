//! The definition of NF4 in plain loops: what the fast code is tested against. Never tuned.

use super::{BOUNDS, CODE};

/// Quantizes `values` into packed codes and one scale a block.
///
/// A whole block is multiplied by the reciprocal of its `absmax`; a last, shorter block is divided by it.
/// The code is the number of [`BOUNDS`] that lie strictly below the scaled value.
pub fn quantize(values: &[f32], block_size: usize) -> (Vec<u8>, Vec<f32>) {
    let mut codes = Vec::with_capacity(values.len() + 1);
    let mut scales = Vec::with_capacity(values.len().div_ceil(block_size));
    for block in values.chunks(block_size) {
        let absmax = absmax(block);
        // Blocks of zeros (and of values below 1e-38) must not divide by zero. bitsandbytes stores the
        // clamped scale for a short last block and the true one for whole blocks.
        let divisor = if absmax < 1e-38 { 1e-38 } else { absmax };
        let whole = block.len() == block_size;
        scales.push(if whole { absmax } else { divisor });
        for &value in block {
            let scaled = if whole { value * (1.0 / divisor) } else { value / divisor };
            codes.push(code(scaled.clamp(-1.0, 1.0)));
        }
    }
    if codes.len() % 2 == 1 {
        codes.push(code(0.0));
    }
    (codes.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect(), scales)
}

/// Dequantizes `out.len()` values from the value with index `start`.
pub fn dequantize_range(packed: &[u8], block_size: usize, absmax: &[f32], start: usize, out: &mut [f32]) {
    for (i, out) in (start..).zip(out) {
        let byte = packed[i / 2];
        let code = if i % 2 == 0 { byte >> 4 } else { byte & 15 };
        *out = CODE[code as usize] * absmax[i / block_size];
    }
}

/// Largest magnitude; NaN if any value is NaN, as in torch.
fn absmax(block: &[f32]) -> f32 {
    let mut max = 0.0_f32;
    for value in block {
        let magnitude = value.abs();
        if magnitude > max || magnitude.is_nan() {
            max = magnitude;
        }
        if max.is_nan() {
            break;
        }
    }
    max
}

/// Number of bounds strictly below `scaled`; NaN sorts above all, as in `torch.bucketize`.
fn code(scaled: f32) -> u8 {
    BOUNDS.iter().filter(|&&bound| scaled > bound || scaled.is_nan()).count() as u8
}
