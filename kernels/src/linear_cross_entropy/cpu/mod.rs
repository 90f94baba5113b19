//! One sweep over the vocabulary for all rows: the softmax of attention, with the head's rows as keys and values.

mod dense;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::ops::Range;

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use crate::amx::rows::with_rows;
use crate::frozen::{Compute, FrozenWeight};
use crate::isa::Tier;

/// What the sweep knows of one row with a target after the blocks it has seen.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// Where the row stands in `h`.
    token: usize,
    /// The row of the head that should have the largest logit.
    target: usize,
    /// The target's logit, once its block was there.
    logit: f32,
    /// The largest logit.
    max: f32,
    /// Sum of `exp(logit - max)`.
    sum: f64,
}

/// How the two products of a block are made.
trait Engine {
    /// Returns the rows of the head that one block has.
    fn width(&self) -> usize;

    /// Takes one block of the head's rows into `rows`, and into the sums if there is a gradient.
    fn block(&mut self, block: Range<usize>, rows: &mut [Row]);

    /// Returns `sum over the vocabulary of exp(logit - max) . W` of row `index`.
    fn sums(&self, index: usize) -> &[f32];
}

/// Returns the sum of losses and, if asked for, its gradient `[tokens, hidden]`.
pub(super) fn forward(
    tier: Tier,
    h: &[f32],
    head: &FrozenWeight,
    targets: &[i32],
    gradient: bool,
) -> (f64, Vec<f32>) {
    let [vocab, hidden] = head.shape();
    let with_target = targets.iter().enumerate().filter(|(_, target)| **target >= 0);
    let mut rows: Vec<Row> = with_target
        .map(|(token, &target)| Row {
            token,
            target: target as usize,
            logit: f32::NEG_INFINITY,
            max: f32::NEG_INFINITY,
            sum: 0.0,
        })
        .collect();
    let mut dh = vec![0.0f32; if gradient { h.len() } else { 0 }];
    if rows.is_empty() {
        return (0.0, dh);
    }
    let mut engine = engine(tier, h, head, &rows, gradient);
    let width = engine.width();
    for start in (0..vocab).step_by(width) {
        engine.block(start..vocab.min(start + width), &mut rows);
    }
    if gradient {
        // `rows` rise in `token`, so the row of a token, if any, is found by bisection.
        dh.par_chunks_exact_mut(hidden.max(1)).enumerate().for_each(|(token, dh)| {
            if let Ok(index) = rows.binary_search_by_key(&token, |row| row.token) {
                head.read_row(rows[index].target, dh);
                let scale = (1.0 / rows[index].sum) as f32;
                for (d, sum) in dh.iter_mut().zip(engine.sums(index)) {
                    *d = sum * scale - *d;
                }
            }
        });
    }
    let loss = |row: &Row| f64::from(row.max) + row.sum.ln() - f64::from(row.logit);
    (rows.iter().map(loss).sum(), dh)
}

/// Chooses the products for a tier and a head.
fn engine<'a>(
    tier: Tier,
    h: &'a [f32],
    head: &'a FrozenWeight,
    rows: &[Row],
    gradient: bool,
) -> Box<dyn Engine + Sync + 'a> {
    let hidden = head.shape()[1];
    #[cfg(target_arch = "x86_64")]
    if tier == Tier::Amx && head.compute() == Compute::Bf16 && hidden > 0 {
        return with_rows!(head, |weight| Box::new(tiles::Tiled::new(h, weight, hidden, rows, gradient)));
    }
    Box::new(dense::Dense::new(tier, h, head, rows, gradient))
}
