//! Forward on the CPU: rows in parallel, one vector pass over each.

use rayon::prelude::*;

use super::GatedKind;
use crate::flex::unwritten;
use crate::isa::{Tier, fma, tiered};
use crate::vector::{exp, tanh};

/// Rows that one task takes: fixed, so that work does not depend on the number of threads.
pub(super) const ROWS_PER_TASK: usize = 8;

/// `sqrt(2 / pi)` and the cubic coefficient of the tanh form of gelu.
pub(super) const GELU: (f32, f32) = (0.797_884_6, 0.044_715);

/// Computes `act(gate) * up` for rows of `2 f` elements.
pub(super) fn gated_act(tier: Tier, gate_up: &[f32], f: usize, kind: GatedKind) -> Vec<f32> {
    #[expect(unsafe_code, reason = "the kernel writes every element")]
    // SAFETY: every row is written by a task.
    let mut y = unsafe { unwritten(gate_up.len() / 2) };
    let chunk = (ROWS_PER_TASK * f).max(1);
    let tasks = y.par_chunks_mut(chunk).zip(gate_up.par_chunks(2 * chunk));
    tasks.for_each(|(y, gate_up)| rows(tier, gate_up, f, y, kind));
    y
}

/// Computes `act(gate) * up` for rows of `2 f` elements, on the calling thread.
pub(crate) fn rows(tier: Tier, gate_up: &[f32], f: usize, y: &mut [f32], kind: GatedKind) {
    match kind {
        GatedKind::SwiGlu => swiglu(tier, gate_up, f, y),
        GatedKind::GeGlu => geglu(tier, gate_up, f, y),
    }
}

tiered! { fn swiglu(gate_up: &[f32], f: usize, y: &mut [f32]) = swiglu_body; }
tiered! { fn geglu(gate_up: &[f32], f: usize, y: &mut [f32]) = geglu_body; }

#[inline(always)]
fn swiglu_body<const FMA: bool, const WIDTH: usize>(gate_up: &[f32], f: usize, y: &mut [f32]) {
    each_row(gate_up, f, y, |g| g / (1.0 + exp::<FMA>(-g)));
}

#[inline(always)]
fn geglu_body<const FMA: bool, const WIDTH: usize>(gate_up: &[f32], f: usize, y: &mut [f32]) {
    each_row(gate_up, f, y, |g| 0.5 * g * (1.0 + tanh::<FMA>(gelu_inner::<FMA>(g))));
}

/// Computes `sqrt(2/pi) (g + 0.044715 g^3)`.
#[inline(always)]
pub(super) fn gelu_inner<const FMA: bool>(g: f32) -> f32 {
    GELU.0 * fma::<FMA>(GELU.1 * g * g, g, g)
}

#[inline(always)]
fn each_row(gate_up: &[f32], f: usize, y: &mut [f32], act: impl Fn(f32) -> f32) {
    for (row, y) in gate_up.chunks_exact(2 * f).zip(y.chunks_exact_mut(f)) {
        let (gate, up) = row.split_at(f);
        for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = act(*gate) * up;
        }
    }
}
