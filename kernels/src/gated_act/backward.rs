//! The gradient with respect to `gate_up`, by hand, recomputed from it.
//!
//! For `y = act(g) u`: `du = dy act(g)` and `dg = dy u act'(g)`.
//!
//! SwiGLU, with `s = 1 / (1 + e^-g)` and `s' = s (1 - s)`:
//! `act(g) = g s`, `act'(g) = s + g s (1 - s) = s (1 + g (1 - s))`.
//! `1 - s` is computed as `e^-g s`, which does not cancel; `e^-g` is infinite and `s` zero only below
//! g = -88, where `(1 - s)` is 1 in f32, hence the minimum.
//!
//! GeGLU, with `t = tanh(c (g + k g^3))`:
//! `act(g) = g/2 (1 + t)`, `act'(g) = (1 + t)/2 + g/2 (1 - t^2) c (1 + 3 k g^2)`.

use rayon::prelude::*;

use super::GatedKind;
use super::cpu::{GELU, ROWS_PER_TASK, gelu_inner};
use crate::isa::{Tier, fma, tiered};
use crate::vector::{exp, tanh};

/// Computes the gradient of `gate_up`.
pub(super) fn gated_act(tier: Tier, gate_up: &[f32], dy: &[f32], f: usize, kind: GatedKind) -> Vec<f32> {
    let mut d = vec![0.0; gate_up.len()];
    let chunk = (ROWS_PER_TASK * f).max(1);
    let tasks = d.par_chunks_mut(2 * chunk).zip(gate_up.par_chunks(2 * chunk)).zip(dy.par_chunks(chunk));
    tasks.for_each(|((d, gate_up), dy)| rows(tier, gate_up, dy, f, d, kind));
    d
}

/// Computes the gradient of rows of `2 f` elements, on the calling thread.
pub(crate) fn rows(tier: Tier, gate_up: &[f32], dy: &[f32], f: usize, d: &mut [f32], kind: GatedKind) {
    match kind {
        GatedKind::SwiGlu => swiglu(tier, gate_up, dy, f, d),
        GatedKind::GeGlu => geglu(tier, gate_up, dy, f, d),
    }
}

tiered! { fn swiglu(gate_up: &[f32], dy: &[f32], f: usize, d: &mut [f32]) = swiglu_body; }
tiered! { fn geglu(gate_up: &[f32], dy: &[f32], f: usize, d: &mut [f32]) = geglu_body; }

#[inline(always)]
fn swiglu_body<const FMA: bool, const WIDTH: usize>(gate_up: &[f32], dy: &[f32], f: usize, d: &mut [f32]) {
    each_row(gate_up, dy, f, d, |g| {
        let e = exp::<FMA>(-g);
        let s = 1.0 / (1.0 + e);
        let rest = if e > f32::MAX { 1.0 } else { e * s };
        (g * s, s * fma::<FMA>(g, rest, 1.0))
    });
}

#[inline(always)]
fn geglu_body<const FMA: bool, const WIDTH: usize>(gate_up: &[f32], dy: &[f32], f: usize, d: &mut [f32]) {
    each_row(gate_up, dy, f, d, |g| {
        let t = tanh::<FMA>(gelu_inner::<FMA>(g));
        let inner_derivative = GELU.0 * fma::<FMA>(3.0 * GELU.1 * g, g, 1.0);
        let half = 0.5 * (1.0 + t);
        // Where tanh is flat the term is 0, but g^2 may be infinite: 0 * inf must not become NaN.
        let flat = (1.0 - t) * (1.0 + t);
        let bend = if flat == 0.0 { 0.0 } else { 0.5 * g * flat * inner_derivative };
        (g * half, half + bend)
    });
}

/// Applies `act`, which gives value and derivative, to rows.
#[inline(always)]
fn each_row(gate_up: &[f32], dy: &[f32], f: usize, d: &mut [f32], act: impl Fn(f32) -> (f32, f32)) {
    let rows = gate_up.chunks_exact(2 * f).zip(dy.chunks_exact(f));
    for ((row, dy), d) in rows.zip(d.chunks_exact_mut(2 * f)) {
        let ((gate, up), (d_gate, d_up)) = (row.split_at(f), d.split_at_mut(f));
        let inputs = gate.iter().zip(up).zip(dy);
        for (((gate, up), dy), (d_gate, d_up)) in inputs.zip(d_gate.iter_mut().zip(d_up)) {
            let (value, derivative) = act(*gate);
            *d_gate = dy * up * derivative;
            *d_up = dy * value;
        }
    }
}
