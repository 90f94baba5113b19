//! Forward on the CPU: tokens in parallel, the row code of `rms_norm` on the query and key parts of a row.

use rayon::prelude::*;

use crate::attention::QkvLayout;
use crate::isa::Tier;
use crate::rms_norm::normalise_rows;

/// Tokens that one task takes: fixed, so that work does not depend on the number of threads.
pub(super) const TOKENS_PER_TASK: usize = 16;

/// Normalises query heads with `weights[0]` and key heads with `weights[1]`; copies value heads.
pub(super) fn qk_norm(
    tier: Tier,
    qkv: &[f32],
    weights: [&[f32]; 2],
    layout: QkvLayout,
    eps: f32,
) -> Vec<f32> {
    let mut y = qkv.to_vec();
    let width = layout.width();
    let tasks = y.par_chunks_mut(TOKENS_PER_TASK * width).zip(qkv.par_chunks(TOKENS_PER_TASK * width));
    tasks.for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            for (part, weight) in parts(layout).into_iter().zip(weights) {
                normalise_rows(tier, &x[part.clone()], weight, eps, &mut y[part]);
            }
        }
    });
    y
}

/// The query part and the key part of a row.
pub(super) fn parts(layout: QkvLayout) -> [std::ops::Range<usize>; 2] {
    let keys = layout.num_kv_heads * layout.head_dim;
    [0..layout.q_width(), layout.q_width()..layout.q_width() + keys]
}
