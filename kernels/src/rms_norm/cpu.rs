//! Forward on the CPU: rows in parallel, each row one dot product and one scaling pass.

use rayon::prelude::*;

use crate::flex::unwritten;
use crate::isa::{Tier, tiered};
use crate::vector::dot;

/// Rows that one task takes: fixed, so that work does not depend on the number of threads.
pub(super) const ROWS_PER_TASK: usize = 16;

/// Normalises the rows (of `weight.len()` elements) of `x`.
pub(super) fn rms_norm(tier: Tier, x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    #[expect(unsafe_code, reason = "the kernel writes every element")]
    // SAFETY: every row is written by a task.
    let mut y = unsafe { unwritten(x.len()) };
    let chunk = (ROWS_PER_TASK * weight.len()).max(1);
    y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| rows(tier, x, weight, eps, y));
    y
}

tiered! { pub(crate) fn rows(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) = rows_body; }

#[inline(always)]
fn rows_body<const FMA: bool, const WIDTH: usize>(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let d = weight.len();
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        let inverse = 1.0 / (dot::<FMA>(x, x) / d as f32 + eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * inverse * w;
        }
    }
}
