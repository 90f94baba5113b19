//! The softmax of a row whose logits come a block at a time.
//!
//! The sum is kept relative to the largest logit so far. Where a block brings a larger one, what was summed is
//! scaled by `exp(old - new)`, so the largest logit itself always counts exactly 1.
//!
//! # Source
//! Milakov and Gimelshein, Online normalizer calculation for softmax (2018), arXiv:1805.02867, section 3.

use super::Row;
use crate::isa::tiered;
use crate::vector::exp;

impl Row {
    /// Takes the target's logit if this block, which starts at row `start` of the head, has it.
    pub(super) fn take_logit(&mut self, logits: &[f32], start: usize) {
        if let Some(logit) = self.target.checked_sub(start).and_then(|index| logits.get(index)) {
            self.seen.logit = *logit;
        }
    }

    /// Raises the largest logit to that of a block; returns what to scale earlier sums by.
    #[inline(always)]
    pub(super) fn raise(&mut self, block_max: f32) -> f32 {
        let old = self.seen.max;
        if block_max > old {
            self.seen.max = block_max;
            let factor = exp::<{ crate::isa::PORTABLE_FMA }>(old - block_max);
            self.seen.sum *= f64::from(factor);
            return factor;
        }
        1.0
    }
}

/// Partial maxima and sums, so that they do not wait for each other; their order is fixed.
const LANES: usize = 32;

tiered! {
    /// Turns the logits of one block into `exp(logit - max)` and takes them into the row's sum; returns what
    /// to scale earlier sums by.
    pub(super) fn softmax_block(logits: &mut [f32], start: usize, row: &mut Row) -> f32 = softmax_body;
}

#[inline(always)]
fn softmax_body<const FMA: bool, const WIDTH: usize>(logits: &mut [f32], start: usize, row: &mut Row) -> f32 {
    row.take_logit(logits, start);
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (max, &value) in maxima.iter_mut().zip(chunk) {
            *max = if value > *max { value } else { *max };
        }
    }
    let block_max = maxima.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let factor = row.raise(block_max);
    let max = row.seen.max;
    let mut sums = [0.0f32; LANES];
    let (chunks, rest) = logits.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *value = exp::<FMA>(*value - max);
            *sum += *value;
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *value = exp::<FMA>(*value - max);
        *sum += *value;
    }
    row.seen.sum += f64::from(crate::vector::fold(&mut sums));
    factor
}
