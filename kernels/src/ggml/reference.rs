//! The definition of each block format, one function a format. A block is its bytes, little-endian.

use half::{bf16, f16};

use super::GgmlType;

/// Decodes a run of whole blocks on the calling thread; arguments are checked by [`super::dequantize`].
///
/// Inlined, so that `cpu.rs` can compile the same arithmetic for each tier.
#[inline(always)]
pub fn dequantize(ty: GgmlType, bytes: &[u8], out: &mut [f32]) {
    match ty {
        GgmlType::F32 => each(bytes, out, |bytes: &[u8; 4], out: &mut [f32; 1]| {
            out[0] = f32::from_le_bytes(*bytes);
        }),
        GgmlType::F16 => each(bytes, out, |bytes: &[u8; 2], out: &mut [f32; 1]| out[0] = half(bytes, 0)),
        GgmlType::BF16 => each(bytes, out, |bytes: &[u8; 2], out: &mut [f32; 1]| {
            out[0] = bf16::from_le_bytes(*bytes).to_f32();
        }),
        GgmlType::Q4_0 => each(bytes, out, q4_0),
        GgmlType::Q4_1 => each(bytes, out, q4_1),
        GgmlType::Q5_0 => each(bytes, out, q5_0),
        GgmlType::Q5_1 => each(bytes, out, q5_1),
        GgmlType::Q8_0 => each(bytes, out, q8_0),
        GgmlType::Q4K => each(bytes, out, q4_k),
        GgmlType::Q5K => each(bytes, out, q5_k),
        GgmlType::Q6K => each(bytes, out, q6_k),
    }
}

#[inline(always)]
fn each<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, out);
    }
}

#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `d: f16, codes: [u8; 16]`; the low nibbles are the first 16 values.
#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (i, &byte) in block[2..].iter().enumerate() {
        out[i] = d * (f32::from(byte & 15) - 8.0);
        out[i + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
}

/// `d: f16, m: f16, codes: [u8; 16]`.
#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (i, &byte) in block[4..].iter().enumerate() {
        out[i] = d * f32::from(byte & 15) + m;
        out[i + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// Bit `i` of the four bytes that hold the fifth bits, moved to bit 4.
#[inline(always)]
fn fifth_bit(high: &[u8], i: usize) -> u8 {
    (high[i / 8] >> (i % 8) & 1) << 4
}

/// `d: f16, fifth bits: [u8; 4], codes: [u8; 16]`.
#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let (d, high) = (half(block, 0), &block[2..6]);
    for (i, &byte) in block[6..].iter().enumerate() {
        out[i] = d * (f32::from(byte & 15 | fifth_bit(high, i)) - 16.0);
        out[i + 16] = d * (f32::from(byte >> 4 | fifth_bit(high, i + 16)) - 16.0);
    }
}

/// `d: f16, m: f16, fifth bits: [u8; 4], codes: [u8; 16]`.
#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high) = (half(block, 0), half(block, 2), &block[4..8]);
    for (i, &byte) in block[8..].iter().enumerate() {
        out[i] = d * f32::from(byte & 15 | fifth_bit(high, i)) + m;
        out[i + 16] = d * f32::from(byte >> 4 | fifth_bit(high, i + 16)) + m;
    }
}

/// `d: f16, codes: [i8; 32]`.
#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (out, &byte) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(byte.cast_signed()) * d;
    }
}

/// 6-bit scale and minimum of sub-block `i` (0 to 7) out of 12 bytes: the first four of each have a byte of
/// their own, the last four borrow its two upper bits.
#[inline(always)]
fn scale_and_min(packed: &[u8], i: usize) -> (f32, f32) {
    let (scale, min) = if i < 4 {
        (packed[i] & 63, packed[i + 4] & 63)
    } else {
        let low = packed[i + 4];
        (low & 15 | packed[i - 4] >> 2 & 0x30, low >> 4 | packed[i] >> 2 & 0x30)
    };
    (f32::from(scale), f32::from(min))
}

/// `d: f16, dmin: f16, scales: [u8; 12], codes: [u8; 128]`; 32 bytes hold two sub-blocks, low nibbles first.
#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin, scales) = (half(block, 0), half(block, 2), &block[4..16]);
    for (sub, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, sub);
        let (d, m) = (d * scale, dmin * min);
        let codes = &block[16 + sub / 2 * 32..];
        for (out, &byte) in out.iter_mut().zip(codes) {
            *out = d * f32::from(byte >> (sub % 2 * 4) & 15) - m;
        }
    }
}

/// `d: f16, dmin: f16, scales: [u8; 12], fifth bits: [u8; 32], codes: [u8; 128]`; bit `j` of a fifth-bit byte
/// belongs to sub-block `j`.
#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin, scales, high) = (half(block, 0), half(block, 2), &block[4..16], &block[16..48]);
    for (sub, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, sub);
        let (d, m) = (d * scale, dmin * min);
        let codes = &block[48 + sub / 2 * 32..];
        for ((out, &byte), &high) in out.iter_mut().zip(codes).zip(high) {
            let code = byte >> (sub % 2 * 4) & 15 | (high >> sub & 1) << 4;
            *out = d * f32::from(code) - m;
        }
    }
}

/// `low 4 bits: [u8; 128], high 2 bits: [u8; 64], scales: [i8; 16], d: f16`; each half of 128 values is four
/// rows of 32 that share 64 low bytes and 32 high bytes.
#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(block, 208);
    for (row, out) in out.chunks_exact_mut(32).enumerate() {
        let (section, part) = (row / 4, row % 4);
        let low = &block[section * 64 + part % 2 * 32..];
        let high = &block[128 + section * 32..];
        for (i, out) in out.iter_mut().enumerate() {
            let code = low[i] >> (part / 2 * 4) & 15 | (high[i] >> (part * 2) & 3) << 4;
            let scale = d * f32::from(block[192 + row * 2 + i / 16].cast_signed());
            *out = scale * (f32::from(code) - 32.0);
        }
    }
}
