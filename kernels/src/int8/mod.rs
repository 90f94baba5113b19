//! int8: a matrix as signed bytes with one scale a row, bitsandbytes' LLM.int8 weight format.
//!
//! `code = round(value * (127 / absmax))` with ties to even, `value ~ code * absmax * (1 / 127)`, where `absmax`
//! is the row's largest magnitude. bitsandbytes calls the codes `CB` and the scales `SCB`.
//!
//! # Source
//! LLM.int8 (Dettmers et al. 2022, <https://arxiv.org/abs/2208.07339>) and bitsandbytes 0.50.2 (MIT),
//! `bitsandbytes/backends/default/ops.py`, `int8_vectorwise_quant` with threshold 0 (the definition that its
//! CPU path uses) and `bitsandbytes/_ops.py`, `int8_vectorwise_dequant`.

pub mod reference;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::isa::{self, tiered};
use crate::section::Section;

/// A matrix in row-wise int8.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8 {
    /// Codes, row-major `[out * in]`.
    pub codes: Vec<i8>,
    /// Largest magnitude of each row, `[out]`.
    pub row_absmax: Vec<f32>,
    /// `[out, in]`.
    pub shape: [usize; 2],
}

/// Parts that do not make one matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Int8Error {
    /// A part is longer or shorter than the shape asks for.
    #[error("int8 `{part}` of a {shape:?} matrix holds {got} entries, expected {expected}")]
    Length {
        /// Which part.
        part: &'static str,
        /// `[out, in]`.
        shape: [usize; 2],
        /// Entries that the shape asks for.
        expected: usize,
        /// Entries that are there.
        got: usize,
    },
    /// `out * in` does not fit in `usize`.
    #[error("int8 shape {shape:?} has too many elements")]
    TooLarge {
        /// `[out, in]`.
        shape: [usize; 2],
    },
}

/// Quantizes a row-major matrix.
///
/// # Numerics
/// Bit-equal to `bitsandbytes.functional.int8_vectorwise_quant` for f32 input on the CPU, but for rows without a
/// non-zero value: there bitsandbytes converts NaN to an integer, which is undefined; the codes here are 0.
///
/// # Panics
/// If `values.len()` is not `out * in`.
pub fn quantize(values: &[f32], shape: [usize; 2]) -> Int8 {
    assert_eq!(values.len(), shape[0] * shape[1], "values do not fill the shape");
    quantize_from(shape, |start, out| out.copy_from_slice(&values[start..][..out.len()]))
}

/// Quantizes a matrix that `read(start, out)` gives a row at a time, so that it need not exist in f32.
///
/// Rows are read in any order, on all threads. Otherwise as [`quantize`].
///
/// # Panics
/// If the shape has more values than fit in `usize`.
pub fn quantize_from(shape: [usize; 2], read: impl Fn(usize, &mut [f32]) + Sync) -> Int8 {
    let [rows, cols] = shape;
    let mut codes = vec![0; rows.checked_mul(cols).expect("a shape that fits in memory")];
    let mut row_absmax = vec![0.0; rows];
    if cols > 0 {
        let rows = codes.par_chunks_mut(cols).zip(&mut row_absmax).enumerate();
        rows.for_each_init(
            || vec![0.0; cols],
            |values, (row, (codes, absmax))| {
                read(row * cols, values);
                *absmax = quantize_row(isa::tier(), values, codes);
            },
        );
    }
    Int8 { codes, row_absmax, shape }
}

tiered! {
    /// One row. There is no multiply-add here, so every tier has the same bits.
    fn quantize_row(row: &[f32], codes: &mut [i8]) -> f32 = quantize_row_body;
}

#[inline(always)]
fn quantize_row_body<const FMA: bool, const WIDTH: usize>(row: &[f32], codes: &mut [i8]) -> f32 {
    reference::quantize_row(row, codes)
}

impl Int8 {
    /// Checks that parts read from a file make one matrix.
    ///
    /// # Errors
    /// [`Int8Error`] for the first part that does not fit the shape.
    pub fn check(&self) -> Result<(), Int8Error> {
        let shape = self.shape;
        let n = shape[0].checked_mul(shape[1]).ok_or(Int8Error::TooLarge { shape })?;
        for (part, expected, got) in
            [("codes", n, self.codes.len()), ("row_absmax", shape[0], self.row_absmax.len())]
        {
            if expected != got {
                return Err(Int8Error::Length { part, shape, expected, got });
            }
        }
        Ok(())
    }

    /// Dequantizes the rows `first ..` that fill `out`, row-major, on the calling thread.
    ///
    /// # Panics
    /// If `out` is not whole rows of the matrix.
    pub fn dequantize_rows(&self, first: usize, out: &mut [f32]) {
        let cols = self.shape[1];
        if out.is_empty() {
            return;
        }
        assert_eq!(out.len() % cols, 0, "out is not whole rows");
        let scales = &self.row_absmax[first..first + out.len() / cols];
        let rows = self.codes[first * cols..].chunks_exact(cols).zip(out.chunks_exact_mut(cols));
        for ((codes, out), &absmax) in rows.zip(scales) {
            reference::dequantize_row(codes, absmax, out);
        }
    }

    /// Dequantizes the whole matrix on all threads.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.codes.len()];
        if self.shape[1] > 0 {
            out.par_chunks_mut(self.shape[1]).enumerate().for_each(|(row, out)| {
                self.dequantize_rows(row, out);
            });
        }
        out
    }

    /// Cuts out a part, which keeps the codes and the scales of the whole.
    ///
    /// # Panics
    /// When the part does not lie in the matrix.
    #[must_use]
    pub fn cut(&self, cut: &Section) -> Int8 {
        let codes = cut.stretches(self.shape).flat_map(|stretch| &self.codes[stretch]).copied().collect();
        let row_absmax = match cut {
            Section::Rows(rows) => self.row_absmax[rows.clone()].to_vec(),
            Section::Columns(_) => self.row_absmax.clone(),
        };
        Int8 { codes, row_absmax, shape: cut.shape(self.shape) }
    }

    /// Bytes that codes and scales take.
    pub fn bytes(&self) -> usize {
        self.codes.len() + self.row_absmax.len() * 4
    }
}
