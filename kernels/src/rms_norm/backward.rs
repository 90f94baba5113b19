//! The gradient with respect to `x`, by hand.
//!
//! With `r = (mean_j x_j^2 + eps)^(-1/2)` a row is `y_i = w_i x_i r`. From
//! `dr/dx_j = -1/2 (..)^(-3/2) * 2 x_j / d = -r^3 x_j / d`:
//!
//! ```text
//! dx_j = sum_i dy_i w_i (r [i = j] + x_i dr/dx_j)
//!      = r w_j dy_j - x_j * (r^3 / d) * sum_i w_i dy_i x_i
//! ```

use rayon::prelude::*;

use super::cpu::ROWS_PER_TASK;
use crate::flex::unwritten;
use crate::isa::{Tier, tiered};
use crate::vector::dot;

/// Computes `dx` for the rows (of `weight.len()` elements) of `x`.
pub(super) fn rms_norm(tier: Tier, x: &[f32], weight: &[f32], dy: &[f32], eps: f32) -> Vec<f32> {
    #[expect(unsafe_code, reason = "the kernel writes every element")]
    // SAFETY: every row is written by a task.
    let mut dx = unsafe { unwritten(x.len()) };
    let chunk = (ROWS_PER_TASK * weight.len()).max(1);
    let tasks = dx.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).zip(dy.par_chunks(chunk));
    tasks.for_each(|((dx, x), dy)| rows(tier, x, weight, dy, eps, dx));
    dx
}

tiered! { pub(crate) fn rows(x: &[f32], weight: &[f32], dy: &[f32], eps: f32, dx: &mut [f32]) = rows_body; }

#[inline(always)]
fn rows_body<const FMA: bool, const WIDTH: usize>(
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    eps: f32,
    dx: &mut [f32],
) {
    let d = weight.len();
    for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
        // `dx` first holds `w * dy`, which both terms need.
        for ((dx, w), dy) in dx.iter_mut().zip(weight).zip(dy) {
            *dx = w * dy;
        }
        let inverse = 1.0 / (dot::<FMA>(x, x) / d as f32 + eps).sqrt();
        // Two factors of `inverse` each side of the dot product keep huge rows inside f32's range.
        let along = dot::<FMA>(dx, x) * inverse / d as f32 * inverse;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = inverse * (*dx - x * along);
        }
    }
}
