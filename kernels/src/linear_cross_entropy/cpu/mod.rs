//! The softmax of attention, with the head's rows as keys and values: what a sweep does with the rows it is given.

mod dense;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod tiles;

use super::sweep::{RowSum, Sweep};
use crate::frozen::{Compute, FrozenWeight};
use crate::isa::Tier;

/// One row with a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Where the row stands in `h`.
    pub(super) token: usize,
    /// The row of the head that should have the largest logit.
    pub(super) target: usize,
    /// What was summed so far.
    pub(super) seen: RowSum,
}

/// How the two products of a block are made.
pub(super) trait Engine: Send {
    /// Takes rows of the head, the first of which is row `start` of the whole, into `rows`, and into the sums if there
    /// is a gradient.
    fn take(&mut self, start: usize, head: &FrozenWeight, rows: &mut [Row]);

    /// Returns `sum over the vocabulary of exp(logit - max) . W` of row `index`.
    fn sums(&self, index: usize) -> &[f32];
}

/// The sizes and types of a head, whoever holds its rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) vocab: usize,
    pub(super) hidden: usize,
    pub(super) compute: Compute,
}

/// Returns the sum of losses and, if asked for, its gradient `[tokens, hidden]`.
pub(super) fn forward(
    tier: Tier,
    h: &[f32],
    head: &FrozenWeight,
    targets: &[i32],
    gradient: bool,
) -> (f64, Vec<f32>) {
    let mut sweep = Sweep::in_tier(tier, h, head.shape(), head.compute(), targets, gradient);
    sweep.take(0, head);
    sweep.finish()
}

/// Chooses the products for a tier and a head.
pub(super) fn engine(
    tier: Tier,
    h: &[f32],
    shape: Shape,
    rows: &[Row],
    gradient: bool,
) -> Box<dyn Engine + Sync> {
    #[cfg(target_arch = "x86_64")]
    if tier == Tier::Amx && shape.compute == Compute::Bf16 && shape.hidden > 0 {
        return Box::new(tiles::Tiled::new(h, shape.hidden, rows, gradient));
    }
    Box::new(dense::Dense::new(tier, h, shape, rows, gradient))
}
