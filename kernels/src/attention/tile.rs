//! The element-wise loops on one tile of scores: mask, cap, softmax and their gradient.

use super::AttentionConfig;
use super::pack::BLOCK;
use crate::isa::tiered;
use crate::vector::{exp, tanh};

/// A block of scores, `[BLOCK queries, BLOCK keys]`.
pub(super) type Scores = [f32; BLOCK * BLOCK];

/// Where a tile lies in its segment, and what decides which of its scores count.
#[derive(Clone, Copy)]
pub(super) struct TileAt {
    /// First query of the tile.
    pub(super) query: usize,
    /// Queries in the tile.
    pub(super) queries: usize,
    /// First key of the tile.
    pub(super) key: usize,
    pub(super) cfg: AttentionConfig,
}

impl TileAt {
    /// The keys, counted in the tile, that its query `row` sees; empty if none.
    #[inline(always)]
    fn seen(self, row: usize) -> std::ops::Range<usize> {
        let i = self.query + row;
        let end = (i + 1).saturating_sub(self.key).min(BLOCK);
        self.cfg.first_key(i).saturating_sub(self.key).min(end)..end
    }

    /// Sets the scores that the mask hides to `hidden`.
    #[inline(always)]
    fn hide(self, scores: &mut Scores, hidden: f32) {
        for row in 0..self.queries {
            let seen = self.seen(row);
            let scores = &mut scores[row * BLOCK..][..BLOCK];
            scores[..seen.start].fill(hidden);
            scores[seen.end..].fill(hidden);
        }
    }
}

/// Bounds scores: `cap tanh(s / cap)`.
#[inline(always)]
fn cap_scores<const FMA: bool>(scores: &mut [f32], cap: Option<f32>) {
    if let Some(cap) = cap {
        for s in scores {
            *s = cap * tanh::<FMA>(*s / cap);
        }
    }
}

tiered! {
    /// One step of the online softmax: turns raw scores into `exp(s - max)`, moves `max` and `sum` of every
    /// row on, and rescales the rows of `out` (`stride` long) to the new maximum.
    pub(super) fn softmax_step(
        at: TileAt, scores: &mut Scores, max: &mut [f32], sum: &mut [f32], out: &mut [f32], stride: usize,
    ) = softmax_step_body;
}

#[inline(always)]
fn softmax_step_body<const FMA: bool, const WIDTH: usize>(
    at: TileAt,
    scores: &mut Scores,
    max: &mut [f32],
    sum: &mut [f32],
    out: &mut [f32],
    stride: usize,
) {
    cap_scores::<FMA>(&mut scores[..at.queries * BLOCK], at.cfg.soft_cap);
    at.hide(scores, f32::NEG_INFINITY);
    for row in 0..at.queries {
        let scores: &mut [f32] = &mut scores[row * BLOCK..][..BLOCK];
        if at.seen(row).is_empty() {
            scores.fill(0.0);
            continue;
        }
        let new_max = fold_lanes(scores, f32::NEG_INFINITY, f32::max).max(max[row]);
        for s in scores.iter_mut() {
            *s = exp::<FMA>(*s - new_max);
        }
        let old = exp::<FMA>(max[row] - new_max);
        sum[row] = sum[row] * old + fold_lanes(scores, 0.0, |a, b| a + b);
        max[row] = new_max;
        if old != 1.0 {
            out[row * stride..][..stride].iter_mut().for_each(|o| *o *= old);
        }
    }
}

/// Folds a row of scores in 16 lanes and then as a tree: the same order on every tier.
#[inline(always)]
fn fold_lanes(row: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    for chunk in row.as_chunks::<16>().0 {
        for l in 0..16 {
            lanes[l] = f(lanes[l], chunk[l]);
        }
    }
    let mut half = 8;
    while half > 0 {
        for l in 0..half {
            lanes[l] = f(lanes[l], lanes[l + half]);
        }
        half /= 2;
    }
    lanes[0]
}

tiered! {
    /// The element-wise part of the gradient: raw scores become probabilities, and `d` (which holds
    /// `dO V^T`) becomes the gradient of the raw scores.
    pub(super) fn gradient_step(
        at: TileAt, scores: &mut Scores, d: &mut Scores, lse: &[f32], delta: &[f32],
    ) = gradient_step_body;
}

#[inline(always)]
fn gradient_step_body<const FMA: bool, const WIDTH: usize>(
    at: TileAt,
    scores: &mut Scores,
    d: &mut Scores,
    lse: &[f32],
    delta: &[f32],
) {
    cap_scores::<FMA>(&mut scores[..at.queries * BLOCK], at.cfg.soft_cap);
    at.hide(scores, f32::NEG_INFINITY);
    for row in 0..at.queries {
        let (lse, delta) = (lse[row], delta[row]);
        let scores: &mut [f32] = &mut scores[row * BLOCK..][..BLOCK];
        let d: &mut [f32] = &mut d[row * BLOCK..][..BLOCK];
        for (s, d) in scores.iter_mut().zip(d.iter_mut()) {
            let capped = *s;
            let p = exp::<FMA>(capped - lse);
            *s = p;
            *d = p * (*d - delta) * slope(at.cfg.soft_cap, capped);
        }
        // A hidden score has probability 0, but its capped value is infinite: 0 * inf above.
        let seen = at.seen(row);
        d[..seen.start].fill(0.0);
        d[seen.end..].fill(0.0);
    }
}

/// The derivative of the cap: `1 - tanh^2`, from the capped score.
#[inline(always)]
fn slope(cap: Option<f32>, capped: f32) -> f32 {
    cap.map_or(1.0, |cap| (1.0 - capped / cap) * (1.0 + capped / cap))
}
