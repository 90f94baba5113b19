//! The gradient with respect to `qkv`: that of `rms_norm` (derived there) on each query and key head, and
//! `dv` as it comes, since `y = x` for value heads.

use rayon::prelude::*;

use super::cpu::{TOKENS_PER_TASK, parts};
use crate::attention::QkvLayout;
use crate::isa::Tier;
use crate::rms_norm::normalise_rows_backward;

/// Computes `dqkv`.
pub(super) fn qk_norm(
    tier: Tier,
    qkv: &[f32],
    weights: [&[f32]; 2],
    dy: &[f32],
    layout: QkvLayout,
    eps: f32,
) -> Vec<f32> {
    let mut d = dy.to_vec();
    let width = layout.width();
    let chunk = TOKENS_PER_TASK * width;
    let tasks = d.par_chunks_mut(chunk).zip(qkv.par_chunks(chunk)).zip(dy.par_chunks(chunk));
    tasks.for_each(|((d, x), dy)| {
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
        for (d, (x, dy)) in d.chunks_exact_mut(width).zip(rows) {
            for (part, weight) in parts(layout).into_iter().zip(weights) {
                let (x, dy) = (&x[part.clone()], &dy[part.clone()]);
                normalise_rows_backward(tier, x, weight, dy, eps, &mut d[part]);
            }
        }
    });
    d
}
