//! The op a stretch of the head's rows at a time, for ranks of which none holds the whole head.

use rayon::prelude::*;

use super::cpu::{self, Engine, Row, Shape};
use crate::frozen::{Compute, FrozenWeight};
use crate::isa::{self, Tier};

/// Blocks of the head's rows end at all multiples of this, whatever the sizes of the op.
pub const BORDER: usize = 512;

/// What a sweep has summed for one row with a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowSum {
    /// The largest logit.
    pub max: f32,
    /// Sum of `exp(logit - max)`.
    pub sum: f64,
    /// The target's logit; minus infinity before its row of the head was there.
    pub logit: f32,
}

impl RowSum {
    /// Of no rows of the head.
    const NOTHING: Self = Self { max: f32::NEG_INFINITY, sum: 0.0, logit: f32::NEG_INFINITY };

    /// Puts together what two sweeps over different rows of the head have summed for one row of `h`. Not a number
    /// stays so.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
        let max = larger(self.max, other.max);
        let sum = self.sum * self.factor(max) + other.sum * other.factor(max);
        Self { max, sum, logit: larger(self.logit, other.logit) }
    }

    /// Returns the row's loss.
    pub fn loss(self) -> f64 {
        f64::from(self.max) + self.sum.ln() - f64::from(self.logit)
    }

    /// Returns what makes sums relative to this maximum those relative to a larger one.
    fn factor(self, max: f32) -> f64 {
        // Also where both are infinite.
        if self.max.to_bits() == max.to_bits() { 1.0 } else { f64::from(self.max - max).exp() }
    }
}

/// The op as far as it has come through the vocabulary.
///
/// A rank that fetches the head a stretch at a time takes each as it comes. A rank that holds some rows of the head takes
/// those; the [`RowSum`]s of all ranks make the loss, and each then has its part of the gradient.
///
/// # Numerics
/// Cut at multiples of [`BORDER`], the bits are those of the op.
pub struct Sweep {
    shape: Shape,
    rows: Vec<Row>,
    engine: Option<Box<dyn Engine + Sync>>,
    /// `W[target]` of rows whose target was there, until the end; empty without a gradient.
    dh: Vec<f32>,
}

impl Sweep {
    /// Starts before the first row of a `[vocab, hidden]` head.
    ///
    /// # Shapes
    /// - `h`: `[tokens, hidden]`, `targets`: `[tokens]`, negative = no target
    ///
    /// # Panics
    /// When there is not one target a row, or a target is not below `vocab`.
    pub fn new(h: &[f32], head: [usize; 2], compute: Compute, targets: &[i32], gradient: bool) -> Self {
        Self::in_tier(isa::tier(), h, head, compute, targets, gradient)
    }

    pub(super) fn in_tier(
        tier: Tier,
        h: &[f32],
        head: [usize; 2],
        compute: Compute,
        targets: &[i32],
        gradient: bool,
    ) -> Self {
        let [vocab, hidden] = head;
        assert_eq!(h.len(), targets.len() * hidden, "not one target a row");
        let with_target = targets.iter().enumerate().filter(|(_, target)| **target >= 0);
        let row = |(token, &target): (usize, &i32)| {
            assert!((target as usize) < vocab, "target {target} beyond the head's {vocab} rows");
            Row { token, target: target as usize, seen: RowSum::NOTHING }
        };
        let rows: Vec<Row> = with_target.map(row).collect();
        let shape = Shape { vocab, hidden, compute };
        let engine = (!rows.is_empty()).then(|| cpu::engine(tier, h, shape, &rows, gradient));
        Self { shape, rows, engine, dh: vec![0.0f32; if gradient { h.len() } else { 0 }] }
    }

    /// Whether no row has a target, so that the head is not needed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes the next rows of the head, of which the first is row `start` of the whole.
    ///
    /// # Panics
    /// When the rows do not lie in the head.
    pub fn take(&mut self, start: usize, head: &FrozenWeight) {
        let ([count, width], shape) = (head.shape(), self.shape);
        assert!(width == shape.hidden && start + count <= shape.vocab, "rows of another head");
        let Some(engine) = &mut self.engine else { return };
        engine.take(start, head, &mut self.rows);
        // `rows` rise in `token`, so the row of a token, if any, is found by bisection.
        let rows = &self.rows;
        self.dh.par_chunks_exact_mut(shape.hidden.max(1)).enumerate().for_each(|(token, dh)| {
            let Ok(index) = rows.binary_search_by_key(&token, |row| row.token) else { return };
            if let Some(target) = rows[index].target.checked_sub(start).filter(|target| *target < count) {
                head.read_row(target, dh);
            }
        });
    }

    /// Returns what was summed for each row with a target, in the order of rows.
    pub fn row_sums(&self) -> Vec<RowSum> {
        self.rows.iter().map(|row| row.seen).collect()
    }

    /// Ends a sweep that has taken the whole head: the sum of losses and, where it was asked for, the gradient
    /// `[tokens, hidden]`.
    pub fn finish(self) -> (f64, Vec<f32>) {
        let all = self.row_sums();
        (all.iter().map(|row| row.loss()).sum(), self.part_of_gradient(&all))
    }

    /// Ends a sweep over some rows of the head: its part of the gradient `[tokens, hidden]`. The parts of sweeps that
    /// together have taken the whole head add up to the gradient.
    ///
    /// # Panics
    /// When `all`, what all sweeps have summed, is not one a row with a target.
    pub fn part_of_gradient(mut self, all: &[RowSum]) -> Vec<f32> {
        assert_eq!(all.len(), self.rows.len(), "not one sum a row");
        let Some(engine) = &self.engine else { return self.dh };
        let rows = &self.rows;
        self.dh.par_chunks_exact_mut(self.shape.hidden.max(1)).enumerate().for_each(|(token, dh)| {
            let Ok(index) = rows.binary_search_by_key(&token, |row| row.token) else { return };
            let (seen, all) = (rows[index].seen, all[index]);
            let scale = (seen.factor(all.max) / all.sum) as f32;
            for (d, sum) in dh.iter_mut().zip(engine.sums(index)) {
                *d = sum * scale - *d;
            }
        });
        self.dh
    }
}

impl std::fmt::Debug for Sweep {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "a sweep over {:?} for {} rows", self.shape, self.rows.len())
    }
}
