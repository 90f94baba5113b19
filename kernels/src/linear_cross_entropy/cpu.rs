//! Rows through the head a chunk at a time, on all threads.

use rayon::prelude::*;

use crate::frozen::{Compute, FrozenWeight, round_to_bf16};
use crate::isa::{self, tiered};
use crate::matmul::{Mode, Operand, View, ViewMut, matmul};
use crate::vector::exp;

/// Rows whose logits exist at one time: 50 MB for a vocabulary of 49152.
const CHUNK_ROWS: usize = 256;

/// Returns the sum of losses and, if asked for, its gradient `[tokens, hidden]`.
pub(super) fn forward(h: &[f32], head: &FrozenWeight, targets: &[i32], gradient: bool) -> (f64, Vec<f32>) {
    let [vocab, hidden] = head.shape();
    let rows: Vec<usize> = (0..targets.len()).filter(|&row| targets[row] >= 0).collect();
    let mut dh = vec![0.0f32; if gradient { h.len() } else { 0 }];
    let mut loss = 0.0f64;
    let mut logits = vec![0.0f32; rows.len().min(CHUNK_ROWS) * vocab];
    for chunk in rows.chunks(CHUNK_ROWS) {
        let n = chunk.len();
        let mut x = gather(h, chunk, hidden);
        if head.compute() == Compute::Bf16 {
            round_to_bf16(&mut x);
        }
        let logits = &mut logits[..n * vocab];
        let view = View { data: &x, stride: hidden };
        let c = ViewMut { data: logits, stride: vocab };
        matmul(n, vocab, hidden, view, &Operand::WeightTransposed(head), c, Mode::Write);
        let losses: Vec<f64> = logits
            .par_chunks_exact_mut(vocab)
            .zip(chunk)
            .map(|(row, &token)| row_loss(isa::tier(), row, targets[token] as usize, gradient))
            .collect();
        loss += losses.iter().sum::<f64>();
        if gradient {
            if head.compute() == Compute::Bf16 {
                logits.par_chunks_exact_mut(vocab).for_each(round_to_bf16);
            }
            let c = ViewMut { data: &mut x, stride: hidden };
            let view = View { data: logits, stride: vocab };
            matmul(n, hidden, vocab, view, &Operand::Weight(head), c, Mode::Write);
            for (row, &token) in x.chunks_exact(hidden).zip(chunk) {
                dh[token * hidden..][..hidden].copy_from_slice(row);
            }
        }
    }
    (loss, dh)
}

fn gather(h: &[f32], rows: &[usize], hidden: usize) -> Vec<f32> {
    rows.iter().flat_map(|&row| &h[row * hidden..][..hidden]).copied().collect()
}

tiered! {
    /// Returns one token's loss; with `gradient`, turns its logits into `softmax - onehot`.
    fn row_loss(row: &mut [f32], target: usize, gradient: bool) -> f64 = row_loss_body;
}

#[inline(always)]
fn row_loss_body<const FMA: bool, const WIDTH: usize>(row: &mut [f32], target: usize, gradient: bool) -> f64 {
    /// Partial sums, so that the additions do not wait for each other; their order is fixed.
    const LANES: usize = 16;
    let max = row.iter().fold(f32::NEG_INFINITY, |max, &value| if value > max { value } else { max });
    let mut sums = [0.0f64; LANES];
    for chunk in row.chunks(LANES) {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(exp::<FMA>(value - max));
        }
    }
    let log_sum_exp = f64::from(max) + sums.iter().sum::<f64>().ln();
    let loss = log_sum_exp - f64::from(row[target]);
    if gradient {
        let lse = log_sum_exp as f32;
        for value in row.iter_mut() {
            *value = exp::<FMA>(*value - lse);
        }
        row[target] -= 1.0;
    }
    loss
}
