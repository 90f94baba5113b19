//! NF4: weights as 4-bit codes of a normal distribution's quantiles, one scale for each block of values.
//!
//! The flattened row-major matrix is cut into blocks of `block_size` values. Each block stores its largest
//! magnitude `absmax`, and each value stores the index of the nearest entry of [`CODE`]:
//! `value ~ CODE[code] * absmax`. Two codes share a byte: element `2i` in the high nibble, `2i + 1` in the low
//! one; an odd length is padded with a zero value. With double quantization `absmax` itself is stored as 8-bit
//! codes, see `double_quant.rs`. Everything here equals bitsandbytes' CPU path bit for bit.
//!
//! Shapes: a matrix is `[out, in]`, `n = out * in` values, `blocks = ceil(n / block_size)`.
//!
//! Source: QLoRA (Dettmers et al. 2023, <https://arxiv.org/abs/2305.14314>, section 3) and bitsandbytes 0.50.2
//! (MIT), `bitsandbytes/backends/default/ops.py` (`quantize_4bit`, `dequantize_4bit`).

mod cpu;
mod dots;
mod double_quant;
pub mod reference;
mod section;
mod stretch;
#[cfg(test)]
mod tests;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::isa;

pub(crate) use dots::RowDots;
pub use double_quant::NESTED_BLOCK;
pub use section::{bytes_of_section, is_whole_blocks};

/// The 16 NF4 values, ascending; a code is an index into this table.
pub const CODE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Midpoints of neighbouring entries of [`CODE`] in f32; a value on a midpoint takes the lower code.
pub(crate) const BOUNDS: [f32; 15] = {
    let mut bounds = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        bounds[i] = f32::midpoint(CODE[i], CODE[i + 1]);
        i += 1;
    }
    bounds
};

/// Block sizes that bitsandbytes writes and that [`quantize`] accepts.
pub const BLOCK_SIZES: [usize; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

/// The scale of each block.
#[derive(Debug, Clone, PartialEq)]
pub enum Absmax {
    /// One f32 a block, `[blocks]`.
    Single(Vec<f32>),
    /// Double quantization: `absmax[i] = map[codes[i]] * nested_absmax[i / nested_block] + offset`.
    Double {
        /// Codes into `map`, `[blocks]`.
        codes: Vec<u8>,
        /// Scale of each group of `nested_block` codes, `[ceil(blocks / nested_block)]`.
        nested_absmax: Vec<f32>,
        /// Codes that share one entry of `nested_absmax`; bitsandbytes always writes 256.
        nested_block: usize,
        /// Mean of the scales before they were quantized.
        offset: f32,
        /// The 256 values a code can stand for.
        map: Box<[f32; 256]>,
    },
}

/// A matrix in NF4.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4 {
    /// Two codes a byte, `[ceil(n / 2)]`.
    pub packed: Vec<u8>,
    /// Scales.
    pub absmax: Absmax,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Values that share one scale.
    pub block_size: usize,
}

/// Parts that do not make one matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nf4Error {
    /// A part is longer or shorter than the shape asks for.
    #[error("nf4 `{part}` of a {shape:?} matrix holds {got} entries, expected {expected}")]
    Length {
        /// Which part.
        part: &'static str,
        /// `[out, in]`.
        shape: [usize; 2],
        /// Entries that the shape and block size ask for.
        expected: usize,
        /// Entries that are there.
        got: usize,
    },
    /// The block size is none of [`BLOCK_SIZES`].
    #[error("nf4 block size {got} is not supported, expected one of {BLOCK_SIZES:?}")]
    BlockSize {
        /// The block size that was asked for.
        got: usize,
    },
    /// The nested block size is zero.
    #[error("nf4 nested block size is 0, expected a positive number such as 256")]
    NestedBlockSize,
    /// `out * in` does not fit in `usize`.
    #[error("nf4 shape {shape:?} has too many elements")]
    TooLarge {
        /// `[out, in]`.
        shape: [usize; 2],
    },
}

/// Quantizes a row-major matrix; `double` also quantizes the scales.
///
/// # Shapes
/// - `values`: `[out * in]`, f32. bf16 and f16 weights are widened first, as bitsandbytes does.
///
/// # Numerics
/// Bit-equal to `bitsandbytes.functional.quantize_4bit` on the CPU; the result does not depend on the number
/// of threads.
///
/// # Panics
/// If `values.len()` is not `out * in` or `block_size` is none of [`BLOCK_SIZES`].
pub fn quantize(values: &[f32], shape: [usize; 2], block_size: usize, double: bool) -> Nf4 {
    assert_eq!(values.len(), shape[0] * shape[1], "values do not fill the shape");
    let copy = |start: usize, out: &mut [f32]| out.copy_from_slice(&values[start..][..out.len()]);
    quantize_from(shape, block_size, double, copy)
}

/// Quantizes a matrix that `read(start, out)` gives a stretch at a time, so that it need not exist in f32.
///
/// `start` is a multiple of 16384 and so is `out.len()`, but for the last stretch; stretches are read in any
/// order, on all threads. Otherwise as [`quantize`].
///
/// # Panics
/// If `block_size` is none of [`BLOCK_SIZES`], or the shape has more values than fit in `usize`.
pub fn quantize_from(
    shape: [usize; 2],
    block_size: usize,
    double: bool,
    read: impl Fn(usize, &mut [f32]) + Sync,
) -> Nf4 {
    assert!(BLOCK_SIZES.contains(&block_size), "unsupported block size {block_size}");
    let len = shape[0].checked_mul(shape[1]).expect("a shape that fits in memory");
    let (packed, absmax) = cpu::quantize(isa::tier(), len, block_size, read);
    let absmax = if double { double_quant::quantize(&absmax) } else { Absmax::Single(absmax) };
    Nf4 { packed, absmax, shape, block_size }
}

impl Nf4 {
    /// Checks that parts read from a file make one matrix.
    ///
    /// # Errors
    /// [`Nf4Error`] for the first part that does not fit the shape and block size.
    pub fn check(&self) -> Result<(), Nf4Error> {
        let shape = self.shape;
        let n = shape[0].checked_mul(shape[1]).ok_or(Nf4Error::TooLarge { shape })?;
        if !BLOCK_SIZES.contains(&self.block_size) {
            return Err(Nf4Error::BlockSize { got: self.block_size });
        }
        let fits = |part, expected, got| {
            if expected == got { Ok(()) } else { Err(Nf4Error::Length { part, shape, expected, got }) }
        };
        fits("packed", n.div_ceil(2), self.packed.len())?;
        let blocks = n.div_ceil(self.block_size);
        match &self.absmax {
            Absmax::Single(absmax) => fits("absmax", blocks, absmax.len()),
            Absmax::Double { codes, nested_absmax, nested_block, .. } => {
                if *nested_block == 0 {
                    return Err(Nf4Error::NestedBlockSize);
                }
                fits("absmax", blocks, codes.len())?;
                fits("nested_absmax", blocks.div_ceil(*nested_block), nested_absmax.len())
            }
        }
    }

    /// Number of values, `out * in`.
    pub fn len(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Whether the matrix has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Scales of all blocks in f32, `[blocks]`; double quantization is undone.
    pub fn absmax_f32(&self) -> Vec<f32> {
        match &self.absmax {
            Absmax::Single(absmax) => absmax.clone(),
            Absmax::Double { codes, nested_absmax, nested_block, offset, map } => codes
                .iter()
                .enumerate()
                .map(|(i, &code)| map[code as usize] * nested_absmax[i / nested_block] + offset)
                .collect(),
        }
    }

    /// Dequantizes the whole matrix, row-major `[out * in]`, on all threads.
    pub fn dequantize(&self) -> Vec<f32> {
        let absmax = self.absmax_f32();
        let mut out = vec![0.0; self.len()];
        let chunk = self.block_size * 64;
        out.par_chunks_mut(chunk).enumerate().for_each(|(i, out)| {
            self.dequantize_range(i * chunk, out, &absmax);
        });
        out
    }

    /// Dequantizes as [`Nf4::dequantize`] and rounds each value to bf16, to nearest even.
    pub fn dequantize_bf16(&self) -> Vec<bf16> {
        self.dequantize().into_par_iter().map(bf16::from_f32).collect()
    }

    /// Dequantizes as [`Nf4::dequantize`] and rounds each value to f16, to nearest even.
    pub fn dequantize_f16(&self) -> Vec<f16> {
        self.dequantize().into_par_iter().map(f16::from_f32).collect()
    }

    /// Dequantizes the values `start .. start + out.len()` of the flattened matrix on the calling thread.
    ///
    /// `value = CODE[code] * absmax[i / block_size]`. Any `start` will do, odd ones too.
    ///
    /// # Shapes
    /// - `absmax`: what [`Nf4::absmax_f32`] returns, `[blocks]`
    ///
    /// # Panics
    /// If the range does not lie in the matrix or `absmax` is too short.
    pub fn dequantize_range(&self, start: usize, out: &mut [f32], absmax: &[f32]) {
        let end = start.checked_add(out.len()).expect("range end fits in usize");
        assert!(end <= self.len(), "range {start}..{end} of {} values", self.len());
        cpu::dequantize_range(&self.packed, self.block_size, absmax, start, out);
    }

    /// Bytes that the packed values and scales take, without the 256-entry map that all matrices share.
    pub fn bytes(&self) -> usize {
        self.packed.len()
            + match &self.absmax {
                Absmax::Single(absmax) => absmax.len() * 4,
                Absmax::Double { codes, nested_absmax, .. } => codes.len() + nested_absmax.len() * 4 + 4,
            }
    }
}
