//! The definition: the reference of `rms_norm` on one head after the other.

use crate::attention::QkvLayout;
use crate::rms_norm::reference::{rms_norm, rms_norm_backward};

/// Normalises query heads with `weights[0]` and key heads with `weights[1]`; copies value heads.
pub fn qk_norm(qkv: &[f64], weights: [&[f64]; 2], layout: QkvLayout, eps: f64) -> Vec<f64> {
    let mut y = qkv.to_vec();
    for start in (0..qkv.len()).step_by(layout.width()) {
        for head in 0..layout.num_heads + layout.num_kv_heads {
            let at = start + layout.q(head).start..start + layout.q(head).end;
            let weight = weights[usize::from(head >= layout.num_heads)];
            y[at.clone()].copy_from_slice(&rms_norm(&qkv[at], weight, eps));
        }
    }
    y
}

/// Computes `dqkv`.
pub fn qk_norm_backward(
    qkv: &[f64],
    weights: [&[f64]; 2],
    dy: &[f64],
    layout: QkvLayout,
    eps: f64,
) -> Vec<f64> {
    let mut d = dy.to_vec();
    for start in (0..qkv.len()).step_by(layout.width()) {
        for head in 0..layout.num_heads + layout.num_kv_heads {
            let at = start + layout.q(head).start..start + layout.q(head).end;
            let weight = weights[usize::from(head >= layout.num_heads)];
            d[at.clone()].copy_from_slice(&rms_norm_backward(&qkv[at.clone()], weight, &dy[at], eps));
        }
    }
    d
}
