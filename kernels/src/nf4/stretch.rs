//! Reading any stretch of a matrix without its decoded scales at hand.

use super::{Absmax, Nf4, cpu};

/// Blocks whose scales are decoded together, on the stack.
const WINDOW: usize = 32;

impl Nf4 {
    /// Returns the scale of one block; double quantization is undone.
    pub fn absmax_at(&self, block: usize) -> f32 {
        match &self.absmax {
            Absmax::Single(absmax) => absmax[block],
            Absmax::Double { codes, nested_absmax, nested_block, offset, map } => {
                map[codes[block] as usize] * nested_absmax[block / nested_block] + offset
            }
        }
    }

    /// Dequantizes the values `start .. start + out.len()` of the flattened matrix on the calling thread.
    ///
    /// # Panics
    /// If the range does not lie in the matrix.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        let (mut at, mut rest) = (start, out);
        while !rest.is_empty() {
            let first = at / self.block_size;
            let base = first * self.block_size;
            let len = rest.len().min(base + WINDOW * self.block_size - at);
            let (part, tail) = rest.split_at_mut(len);
            let blocks = (at + len - base).div_ceil(self.block_size);
            let mut absmax = [0.0f32; WINDOW];
            for (i, absmax) in absmax[..blocks].iter_mut().enumerate() {
                *absmax = self.absmax_at(first + i);
            }
            cpu::dequantize_range(&self.packed[base / 2..], self.block_size, &absmax, at - base, part);
            at += len;
            rest = tail;
        }
    }
}
