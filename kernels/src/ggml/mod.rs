//! ggml block formats of GGUF files, decoded to f32.
//!
//! A tensor is a run of blocks; each block of `block_len` values takes `block_bytes` bytes and holds its own
//! scales. Formats ending in `_K` have 256 values in sub-blocks with scales of scales. Decoding only: nothing
//! here writes these formats.
//!
//! # Source
//! llama.cpp's gguf-py 0.19.0 (MIT), `gguf/quants.py`, whose numpy results are equalled bit for bit;
//! `GGML_QUANT_SIZES` in `gguf/constants.py`.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::isa;

/// Storage types of GGUF tensors that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GgmlType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 4 bits, one scale.
    Q4_0,
    /// 4 bits, scale and minimum.
    Q4_1,
    /// 5 bits, one scale.
    Q5_0,
    /// 5 bits, scale and minimum.
    Q5_1,
    /// 8 bits, one scale.
    Q8_0,
    /// 4 bits in 8 sub-blocks of 32, 6-bit scales and minima.
    Q4K,
    /// 5 bits in 8 sub-blocks of 32, 6-bit scales and minima.
    Q5K,
    /// 6 bits in 16 sub-blocks of 16, 8-bit scales.
    Q6K,
}

impl GgmlType {
    /// All readable types.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Number of the type in GGUF files.
    pub const fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::BF16 => 30,
        }
    }

    /// The type with this number, if it can be read.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.id() == id)
    }

    /// ggml's name of the type, such as `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values in one block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }
}

/// Values that one task decodes: a multiple of every block length.
const TASK_VALUES: usize = 1 << 14;

/// Decodes a run of whole blocks on all threads.
///
/// # Numerics
/// Bit-equal to `gguf.quants.dequantize`: products and sums in f32, in its order, never fused.
///
/// # Panics
/// If `out.len()` is not a multiple of the block length or `bytes` is not as long as `out` asks for.
pub fn dequantize(ty: GgmlType, bytes: &[u8], out: &mut [f32]) {
    check(ty, bytes, out);
    let task_bytes = TASK_VALUES / ty.block_len() * ty.block_bytes();
    let tasks = bytes.par_chunks(task_bytes).zip(out.par_chunks_mut(TASK_VALUES));
    tasks.for_each(|(bytes, out)| cpu::dequantize(isa::tier(), ty, bytes, out));
}

/// Decodes as [`dequantize`], on the calling thread.
///
/// # Panics
/// As [`dequantize`].
pub fn dequantize_here(ty: GgmlType, bytes: &[u8], out: &mut [f32]) {
    check(ty, bytes, out);
    cpu::dequantize(isa::tier(), ty, bytes, out);
}

fn check(ty: GgmlType, bytes: &[u8], out: &[f32]) {
    assert_eq!(out.len() % ty.block_len(), 0, "{} values are not whole {} blocks", out.len(), ty.name());
    assert_eq!(bytes.len(), out.len() / ty.block_len() * ty.block_bytes(), "bytes of {}", ty.name());
}
