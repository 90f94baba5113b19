//! The inner loops on one tile: small matrix products and the softmax of a block of scores.

use super::AttentionConfig;
use super::pack::BLOCK;
use crate::isa::{fma, tiered};
use crate::vector::{exp, tanh};

/// A block of scores, `[BLOCK queries, BLOCK keys]`.
pub(super) type Scores = [f32; BLOCK * BLOCK];

/// The left operand of a product, `m` x `k`.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// `a[i, p]` at `i * stride + p`.
    Rows(&'a [f32], usize),
    /// `a[i, p]` at `p * stride + i`.
    Columns(&'a [f32], usize),
}

tiered! {
    /// Adds `a b` to `c`: `[m, n] += [m, k] [k, n]`; `b` and `c` have `n` columns, a multiple of 16.
    ///
    /// Each element is one chain of additions in the order of `k`, whatever the tile shape.
    pub(super) fn add_product(a: Left<'_>, b: &[f32], c: &mut [f32], m: usize, n: usize, k: usize) =
        add_product_body;
}

#[inline(always)]
fn add_product_body<const FMA: bool, const WIDTH: usize>(
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
) {
    // Registers for accumulators: 16 of 32 with AVX-512, 8 of 16 otherwise.
    match WIDTH {
        16 => sweep::<FMA, 8, 32>(a, b, c, m, n, k),
        8 => sweep::<FMA, 4, 16>(a, b, c, m, n, k),
        _ => sweep::<FMA, 4, 8>(a, b, c, m, n, k),
    }
}

/// Covers `c` with tiles of `MR` x `NR`; what is left over goes row by row and 16 columns at a time.
#[inline(always)]
fn sweep<const FMA: bool, const MR: usize, const NR: usize>(
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
) {
    let full = m / MR * MR;
    let mut j = 0;
    while j + NR <= n {
        (0..full).step_by(MR).for_each(|i| product_tile::<FMA, MR, NR>(a, b, c, (i, j), n, k));
        (full..m).for_each(|i| product_tile::<FMA, 1, NR>(a, b, c, (i, j), n, k));
        j += NR;
    }
    while j + 16 <= n {
        (0..full).step_by(MR).for_each(|i| product_tile::<FMA, MR, 16>(a, b, c, (i, j), n, k));
        (full..m).for_each(|i| product_tile::<FMA, 1, 16>(a, b, c, (i, j), n, k));
        j += 16;
    }
}

#[inline(always)]
fn product_tile<const FMA: bool, const MR: usize, const NR: usize>(
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    (i, j): (usize, usize),
    n: usize,
    k: usize,
) {
    let mut sums = [[0.0f32; NR]; MR];
    for r in 0..MR {
        sums[r].copy_from_slice(&c[(i + r) * n + j..][..NR]);
    }
    match a {
        Left::Rows(a, stride) => {
            let rows: [&[f32]; MR] = std::array::from_fn(|r| &a[(i + r) * stride..][..k]);
            for p in 0..k {
                step::<FMA, MR, NR>(&mut sums, &b[p * n + j..], |r| rows[r][p]);
            }
        }
        Left::Columns(a, stride) => {
            for p in 0..k {
                let column = &a[p * stride + i..][..MR];
                step::<FMA, MR, NR>(&mut sums, &b[p * n + j..], |r| column[r]);
            }
        }
    }
    for r in 0..MR {
        c[(i + r) * n + j..][..NR].copy_from_slice(&sums[r]);
    }
}

#[inline(always)]
fn step<const FMA: bool, const MR: usize, const NR: usize>(
    sums: &mut [[f32; NR]; MR],
    b: &[f32],
    a: impl Fn(usize) -> f32,
) {
    let b: &[f32; NR] = b.first_chunk().expect("`b` has whole rows of `n` columns");
    for r in 0..MR {
        let a = a(r);
        for l in 0..NR {
            sums[r][l] = fma::<FMA>(a, b[l], sums[r][l]);
        }
    }
}

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
        scores.iter_mut().for_each(|s| *s = cap * tanh::<FMA>(*s / cap));
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
