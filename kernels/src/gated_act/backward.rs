//! The gradient with respect to `gate_up`, by hand, recomputed from it and written in its place.
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

/// Elements that are computed together.
const LANES: usize = 32;

/// Turns `gate_up` into its gradient.
pub(super) fn gated_act(tier: Tier, gate_up: &mut [f32], dy: &[f32], f: usize, kind: GatedKind) {
    let chunk = (ROWS_PER_TASK * f).max(1);
    let tasks = gate_up.par_chunks_mut(2 * chunk).zip(dy.par_chunks(chunk));
    tasks.for_each(|(gate_up, dy)| match kind {
        GatedKind::SwiGlu => swiglu(tier, gate_up, dy, f),
        GatedKind::GeGlu => geglu(tier, gate_up, dy, f),
    });
}

/// Turns rows of `2 f` elements into their gradient and `dy` into the value, on the calling thread.
#[cfg(target_arch = "x86_64")]
pub(crate) fn both(tier: Tier, gate_up: &mut [f32], dy: &mut [f32], f: usize, kind: GatedKind) {
    match kind {
        GatedKind::SwiGlu => swiglu_both(tier, gate_up, dy, f),
        GatedKind::GeGlu => geglu_both(tier, gate_up, dy, f),
    }
}

tiered! { fn swiglu(gate_up: &mut [f32], dy: &[f32], f: usize) = swiglu_body; }
tiered! { fn geglu(gate_up: &mut [f32], dy: &[f32], f: usize) = geglu_body; }
#[cfg(target_arch = "x86_64")]
tiered! { fn swiglu_both(gate_up: &mut [f32], dy: &mut [f32], f: usize) = swiglu_both_body; }
#[cfg(target_arch = "x86_64")]
tiered! { fn geglu_both(gate_up: &mut [f32], dy: &mut [f32], f: usize) = geglu_both_body; }

#[inline(always)]
fn swiglu_body<const FMA: bool, const WIDTH: usize>(gate_up: &mut [f32], dy: &[f32], f: usize) {
    each_row(gate_up, dy, f, silu::<FMA>);
}

#[inline(always)]
fn geglu_body<const FMA: bool, const WIDTH: usize>(gate_up: &mut [f32], dy: &[f32], f: usize) {
    each_row(gate_up, dy, f, gelu::<FMA>);
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn swiglu_both_body<const FMA: bool, const WIDTH: usize>(gate_up: &mut [f32], dy: &mut [f32], f: usize) {
    each_row_both(gate_up, dy, f, silu::<FMA>);
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn geglu_both_body<const FMA: bool, const WIDTH: usize>(gate_up: &mut [f32], dy: &mut [f32], f: usize) {
    each_row_both(gate_up, dy, f, gelu::<FMA>);
}

/// Value and derivative of `g / (1 + e^-g)`.
#[inline(always)]
fn silu<const FMA: bool>(g: f32) -> (f32, f32) {
    let e = exp::<FMA>(-g);
    let s = 1.0 / (1.0 + e);
    let rest = if e > f32::MAX { 1.0 } else { e * s };
    (g * s, s * fma::<FMA>(g, rest, 1.0))
}

/// Value and derivative of the tanh form of gelu.
#[inline(always)]
fn gelu<const FMA: bool>(g: f32) -> (f32, f32) {
    let t = tanh::<FMA>(gelu_inner::<FMA>(g));
    let inner_derivative = GELU.0 * fma::<FMA>(3.0 * GELU.1 * g, g, 1.0);
    let half = 0.5 * (1.0 + t);
    // Where tanh is flat the term is 0, but g^2 may be infinite: 0 * inf must not become NaN.
    let flat = (1.0 - t) * (1.0 + t);
    let bend = if flat == 0.0 { 0.0 } else { 0.5 * g * flat * inner_derivative };
    (g * half, half + bend)
}

/// As [`each_row`], and leaves the value in `dy`. Rows are whole chunks of [`LANES`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn each_row_both(gate_up: &mut [f32], dy: &mut [f32], f: usize, act: impl Fn(f32) -> (f32, f32)) {
    assert!(f.is_multiple_of(LANES), "rows of {f} are not whole chunks");
    for (row, dy) in gate_up.chunks_exact_mut(2 * f).zip(dy.chunks_exact_mut(f)) {
        let (gate, up) = row.split_at_mut(f);
        let rows = gate.as_chunks_mut::<LANES>().0.iter_mut().zip(up.as_chunks_mut::<LANES>().0);
        for ((gate, up), dy) in rows.zip(dy.as_chunks_mut::<LANES>().0) {
            // By value: the compiler does not know that the three places are apart.
            let (mut g, mut u, mut d) = (*gate, *up, *dy);
            for i in 0..LANES {
                let (value, derivative) = act(g[i]);
                (g[i], u[i], d[i]) = (d[i] * u[i] * derivative, d[i] * value, value * u[i]);
            }
            (*gate, *up, *dy) = (g, u, d);
        }
    }
}

/// Applies `act`, which gives value and derivative, to rows.
#[inline(always)]
fn each_row(gate_up: &mut [f32], dy: &[f32], f: usize, act: impl Fn(f32) -> (f32, f32)) {
    for (row, dy) in gate_up.chunks_exact_mut(2 * f).zip(dy.chunks_exact(f)) {
        let (gate, up) = row.split_at_mut(f);
        let one = |gate: f32, up: f32, dy: f32| {
            let (value, derivative) = act(gate);
            (dy * up * derivative, dy * value)
        };
        let ((gates, gate), (ups, up)) = (gate.as_chunks_mut::<LANES>(), up.as_chunks_mut::<LANES>());
        let (dys, dy) = dy.as_chunks::<LANES>();
        for ((gate, up), dy) in gates.iter_mut().zip(ups).zip(dys) {
            // By value: the compiler does not know that the three places are apart.
            let (mut g, mut u) = (*gate, *up);
            for (i, dy) in dy.iter().enumerate() {
                (g[i], u[i]) = one(g[i], u[i], *dy);
            }
            (*gate, *up) = (g, u);
        }
        for ((gate, up), dy) in gate.iter_mut().zip(up).zip(dy) {
            (*gate, *up) = one(*gate, *up, *dy);
        }
    }
}
