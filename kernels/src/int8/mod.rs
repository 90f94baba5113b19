                return Err(Int8Error::Length { part, shape, expected, got });
                self.dequantize_rows(row, out);
            *absmax = reference::quantize_row(row, codes);
            [("codes", n, self.codes.len()), ("row_absmax", shape[0], self.row_absmax.len())]
            if expected != got {
            out.par_chunks_mut(self.shape[1]).enumerate().for_each(|(row, out)| {
            reference::dequantize_row(codes, absmax, out);
            return;
            }
            });
        /// Entries that are there.
        /// Entries that the shape asks for.
        /// Which part.
        /// `[out, in]`.
        Ok(())
        assert_eq!(out.len() % cols, 0, "out is not whole rows");
        expected: usize,
        for ((codes, out), &absmax) in rows.zip(scales) {
        for (part, expected, got) in
        got: usize,
        if out.is_empty() {
        if self.shape[1] > 0 {
        let cols = self.shape[1];
        let mut out = vec![0.0; self.codes.len()];
        let n = shape[0].checked_mul(shape[1]).ok_or(Int8Error::TooLarge { shape })?;
        let rows = self.codes[first * cols..].chunks_exact(cols).zip(out.chunks_exact_mut(cols));
        let rows = values.par_chunks(shape[1]).zip(codes.par_chunks_mut(shape[1]));
        let scales = &self.row_absmax[first..first + out.len() / cols];
        let shape = self.shape;
        out
        part: &'static str,
        rows.zip(&mut row_absmax).for_each(|((row, codes), absmax)| {
        self.codes.len() + self.row_absmax.len() * 4
        shape: [usize; 2],
        {
        }
        });
    #[error("int8 `{part}` of a {shape:?} matrix holds {got} entries, expected {expected}")]
    #[error("int8 shape {shape:?} has too many elements")]
    ///
    /// # Errors
    /// # Panics
    /// A part is longer or shorter than the shape asks for.
    /// Bytes that codes and scales take.
    /// Checks that parts read from a file make one matrix.
    /// Codes, row-major `[out * in]`.
    /// Dequantizes the rows `first ..` that fill `out`, row-major, on the calling thread.
    /// Dequantizes the whole matrix on all threads.
    /// If `out` is not whole rows of the matrix.
    /// Largest magnitude of each row, `[out]`.
    /// [`Int8Error`] for the first part that does not fit the shape.
    /// `[out, in]`.
    /// `out * in` does not fit in `usize`.
    /// c
    /// r
    /// s
    Int8 { codes, row_absmax, shape }
    Length {
    TooLarge {
    assert_eq!(values.len(), shape[0] * shape[1], "values do not fill the shape");
    pub codes: Vec<i8>,
    pub fn bytes(&self) -> usize {
    pub fn check(&self) -> Result<(), Int8Error> {
    pub fn dequantize(&self) -> Vec<f32> {
    pub fn dequantize_rows(&self, first: usize, out: &mut [f32]) {
    if shape[1] > 0 {
    let mut codes = vec![0; values.len()];
    let mut row_absmax = vec![0.0; shape[0]];
    pub row_absmax: Vec<f32>,
    pub shape: [usize; 2],
    }
    },
#[cfg(test)]
#[derive(Debug)]
#[derive(Debug, Clone, PartialEq)]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
//!
//! # Source
//! CPU path uses) and `bitsandbytes/_ops.py`, `int8_vectorwise_dequant`.
//! LLM.int8 (Dettmers et al. 2022, <https://arxiv.org/abs/2208.07339>) and bitsandbytes 0.50.2 (MIT),
//! `bitsandbytes/backends/default/ops.py`, `int8_vectorwise_quant` with threshold 0 (the definition that its
//! `code = round(value * (127 / absmax))` with ties to even, `value ~ code * absmax * (1 / 127)`, where `absmax`
//! int8: a matrix as signed bytes with one scale a row, bitsandbytes' LLM.int8 weight format.
//! is the row's largest magnitude. bitsandbytes calls the codes `CB` and the scales `SCB`.
//! placeholder until merged
///
/// # Numerics
/// # Panics
/// A matrix in row-wise int8.
/// Bit-equal to `bitsandbytes.functional.int8_vectorwise_quant` for f32 input on the CPU, but for rows without a
/// If `values.len()` is not `out * in`.
/// Parts that do not make one matrix.
/// Quantizes a row-major matrix.
/// non-zero value: there bitsandbytes converts NaN to an integer, which is undefined; the codes here are 0.
/// x
pub enum Int8Error {
pub fn quantize(values: &[f32], shape: [usize; 2]) -> Int8 {
impl Int8 {
pub mod reference;
mod tests;
pub struct Int8 {
use rayon::prelude::*;
}
