//! Multi-threaded NF4: the arithmetic of `reference.rs` in an order that compilers turn into vector code.

#[cfg(target_arch = "x86_64")]
mod avx512;

use rayon::prelude::*;

use super::{BOUNDS, CODE};
use crate::isa::{Tier, tiered};

/// Values that one task quantizes: a multiple of every block size, so that no byte is shared by two tasks.
const TASK_VALUES: usize = 1 << 14;

/// Values whose codes are computed together.
const LANES: usize = 32;

/// Quantizes `len` values, which `read` gives a stretch at a time, into packed codes and one scale a block. Each
/// task writes only its own blocks, so that threads cannot change the result.
pub(super) fn quantize(
    tier: Tier,
    len: usize,
    block_size: usize,
    read: impl Fn(usize, &mut [f32]) + Sync,
) -> (Vec<u8>, Vec<f32>) {
    let mut packed = vec![0; len.div_ceil(2)];
    let mut scales = vec![0.0; len.div_ceil(block_size)];
    let tasks = packed.par_chunks_mut(TASK_VALUES / 2).zip(scales.par_chunks_mut(TASK_VALUES / block_size));
    tasks.enumerate().for_each_init(
        || vec![0.0; TASK_VALUES.min(len)],
        |values, (task, (packed, scales))| {
            let start = task * TASK_VALUES;
            let values = &mut values[..TASK_VALUES.min(len - start)];
            read(start, values);
            blocks(tier, values, packed, scales, block_size);
        },
    );
    (packed, scales)
}

/// Quantizes a stretch of whole blocks. There is no multiply-add here, so every tier has the same bits.
fn blocks(tier: Tier, values: &[f32], packed: &mut [u8], scales: &mut [f32], block_size: usize) {
    #[cfg(target_arch = "x86_64")]
    if tier != Tier::Avx2 && tier != Tier::Portable {
        assert!(tier.is_available(), "tier `{}` asked for without a check", tier.name());
        #[expect(unsafe_code, reason = "calling code compiled for a checked instruction set")]
        // SAFETY: the tiers above AVX2 have every feature that the function enables, and this one is available.
        return unsafe { avx512::quantize_blocks(values, packed, scales, block_size) };
    }
    quantize_blocks(tier, values, packed, scales, block_size);
}

tiered! {
    fn quantize_blocks(values: &[f32], packed: &mut [u8], scales: &mut [f32], block_size: usize) = blocks_body;
}

#[inline(always)]
fn blocks_body<const FMA: bool, const WIDTH: usize>(
    values: &[f32],
    packed: &mut [u8],
    scales: &mut [f32],
    block_size: usize,
) {
    let blocks = values.chunks(block_size).zip(packed.chunks_mut(block_size / 2));
    for ((block, packed), scale) in blocks.zip(scales) {
        *scale = quantize_block(block, packed, block.len() == block_size);
    }
}

#[inline(always)]
fn quantize_block(block: &[f32], packed: &mut [u8], whole: bool) -> f32 {
    let absmax = absmax(block);
    let divisor = if absmax < 1e-38 { 1e-38 } else { absmax };
    let reciprocal = 1.0 / divisor;
    for (values, packed) in block.chunks(LANES).zip(packed.chunks_mut(LANES / 2)) {
        let mut scaled = [0.0_f32; LANES];
        for (scaled, &value) in scaled.iter_mut().zip(values) {
            let quotient = if whole { value * reciprocal } else { value / divisor };
            *scaled = quotient.clamp(-1.0, 1.0);
        }
        let codes = codes(&scaled);
        for (packed, pair) in packed.iter_mut().zip(codes.chunks_exact(2)) {
            *packed = (pair[0] << 4 | pair[1]) as u8;
        }
    }
    if whole { absmax } else { divisor }
}

/// Counts the bounds below each value. One bound against all lanes keeps the inner loop free of branches.
#[expect(clippy::neg_cmp_op_on_partial_ord, reason = "NaN must count as above every bound")]
#[inline(always)]
fn codes(scaled: &[f32; LANES]) -> [u32; LANES] {
    let mut codes = [0_u32; LANES];
    for bound in BOUNDS {
        for (code, &scaled) in codes.iter_mut().zip(scaled) {
            *code += u32::from(!(scaled <= bound));
        }
    }
    codes
}

/// Largest magnitude. The bits of a non-negative f32 order as integers, with NaN above infinity.
#[inline(always)]
fn absmax(block: &[f32]) -> f32 {
    f32::from_bits(block.iter().map(|value| value.to_bits() & 0x7fff_ffff).max().unwrap_or(0))
}

/// Dequantizes `out.len()` values from the value with index `start`: 16 products a block, then look-ups.
pub(super) fn dequantize_range(
    packed: &[u8],
    block_size: usize,
    absmax: &[f32],
    start: usize,
    out: &mut [f32],
) {
    let mut index = start;
    let mut rest = out;
    while !rest.is_empty() {
        let block = index / block_size;
        let len = rest.len().min((block + 1) * block_size - index);
        let (out, tail) = rest.split_at_mut(len);
        let values = CODE.map(|code| code * absmax[block]);
        dequantize_block(packed, &values, index, out);
        index += len;
        rest = tail;
    }
}

/// Looks up values `start ..` of one block, whose scaled table is `values`.
fn dequantize_block(packed: &[u8], values: &[f32; 16], start: usize, out: &mut [f32]) {
    // A range may begin on the low nibble of a byte and end on the high one.
    let (odd, rest) = out.split_at_mut((start % 2).min(out.len()));
    if let Some(first) = odd.first_mut() {
        *first = values[usize::from(packed[start / 2] & 15)];
    }
    let packed = &packed[start.div_ceil(2)..];
    let whole_pairs = rest.len() / 2;
    let mut pairs = rest.chunks_exact_mut(2);
    for (pair, &byte) in pairs.by_ref().zip(packed) {
        pair[0] = values[usize::from(byte >> 4)];
        pair[1] = values[usize::from(byte & 15)];
    }
    if let Some(last) = pairs.into_remainder().first_mut() {
        *last = values[usize::from(packed[whole_pairs] >> 4)];
    }
}
