//! Blocks in f32, for every tier and storage: the general product, with a block of the head read as f32.

use std::ops::Range;

use rayon::prelude::*;

use super::super::sweep::BORDER;
use super::softmax::softmax_block;
use super::{Engine, Row, Shape};
use crate::frozen::{Compute, FrozenWeight, round_to_bf16};
use crate::isa::Tier;
use crate::matmul::{Mode, Operand, View, ViewMut, matmul};

/// Rows of the head that are in f32 at one time: 1.2 MB for a width of 576.
const WIDTH: usize = BORDER;

/// Logits that exist at one time (16 MB), unless that would make a block narrower than `NARROWEST`.
const LOGITS: usize = 1 << 22;

/// Below this width the sums are read and written too often.
const NARROWEST: usize = BORDER / 8;

pub(super) struct Dense {
    tier: Tier,
    hidden: usize,
    gradient: bool,
    width: usize,
    /// `[rows, hidden]`
    x: Vec<f32>,
    /// `[rows, width]`
    logits: Vec<f32>,
    /// `[width, hidden]`
    weight: Vec<f32>,
    /// `[rows, hidden]`
    sums: Vec<f32>,
}

impl Dense {
    pub(super) fn new(tier: Tier, h: &[f32], shape: Shape, rows: &[Row], gradient: bool) -> Self {
        let Shape { vocab, hidden, compute } = shape;
        // A power of two, so that blocks of any number of rows end at every border.
        let width = (1 << (LOGITS / rows.len()).clamp(NARROWEST, WIDTH).ilog2()).min(vocab);
        let mut x: Vec<f32> =
            rows.iter().flat_map(|row| &h[row.token * hidden..][..hidden]).copied().collect();
        if compute == Compute::Bf16 {
            round_to_bf16(&mut x);
        }
        let sums = vec![0.0; if gradient { x.len() } else { 0 }];
        let (logits, weight) = (vec![0.0; rows.len() * width], vec![0.0; width * hidden]);
        let gradient = gradient && hidden > 0;
        Self { tier, hidden, gradient, width, x, logits, weight, sums }
    }

    /// Takes rows `block` of `head`; row 0 of it is row `first` of the whole.
    fn block(&mut self, block: Range<usize>, first: usize, head: &FrozenWeight, rows: &mut [Row]) {
        let (cols, hidden) = (block.len(), self.hidden);
        let weight = &mut self.weight[..cols * hidden];
        weight.par_chunks_mut(hidden.max(1)).enumerate().for_each(|(index, out)| {
            head.read_row(block.start + index, out);
        });
        let logits = &mut self.logits[..rows.len() * cols];
        let b = Operand::Transposed { data: weight, shape: [hidden, cols] };
        let x = View { data: &self.x, stride: hidden };
        matmul(rows.len(), cols, hidden, x, &b, ViewMut { data: logits, stride: cols }, Mode::Write);
        let narrow = head.compute() == Compute::Bf16;
        let (tier, start) = (self.tier, first + block.start);
        let softmax = |(row, logits): (&mut Row, &mut [f32])| {
            let factor = softmax_block(tier, logits, start, row);
            if narrow {
                round_to_bf16(logits);
            }
            factor
        };
        if !self.gradient {
            rows.par_iter_mut().zip(logits.par_chunks_exact_mut(cols)).for_each(|pair| {
                softmax(pair);
            });
            return;
        }
        let sums = self.sums.par_chunks_mut(hidden.max(1));
        rows.par_iter_mut().zip(logits.par_chunks_exact_mut(cols)).zip(sums).for_each(|(pair, sums)| {
            let factor = softmax(pair);
            if factor != 1.0 {
                for sum in sums {
                    *sum *= factor;
                }
            }
        });
        let b = Operand::Dense { data: weight, stride: hidden, shape: [cols, hidden] };
        let (e, sums) =
            (View { data: logits, stride: cols }, ViewMut { data: &mut self.sums, stride: hidden });
        matmul(rows.len(), hidden, cols, e, &b, sums, Mode::Add);
    }
}

impl Engine for Dense {
    fn take(&mut self, start: usize, head: &FrozenWeight, rows: &mut [Row]) {
        let count = head.shape()[0];
        for at in (0..count).step_by(self.width) {
            self.block(at..count.min(at + self.width), start, head, rows);
        }
    }

    fn sums(&self, index: usize) -> &[f32] {
        &self.sums[index * self.hidden..][..self.hidden]
    }
}
