//! The gradients, by hand.
//!
//! With `t = scale * xd . A^T` (where `xd = mask * x`, kept from the forward pass) and `y = x . W^T + t . B^T`:
//! - `u  = scale * dy . B`                      (`[tokens, rank]`)
//! - `dx = dy . W + mask * (u . A)`, summed over the projections: one chain over `[dy | u]`
//! - `dA = u^T . xd`
//! - `dB^T = t^T . dy`
//!
//! `dA` and `dB` are sums over tokens, in rising order of the token.
//!
//! # Limits
//! `2 m k n` FLOPs for the frozen part and `4 m rank (k + n)` for the adapter's; `dy` is read twice (for `dx` and
//! for `dB`), `x` once, `dx` is written once. In f32 `dA` and `dB` read `x` and `dy` where they are: 8 FLOPs a byte at
//! rank 16, so memory limits them.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::cpu::{Factors, dropped, on_unit, scale};
use super::{Group, LowRank, MAX_PARTS};
use crate::flex::{slice, tensor, unwritten};
use crate::matmul::{Operand, Output, Segment, Start, Unit, View, ViewMut, product};

/// What the backward pass reads besides the factors.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    /// `[m, k]`.
    pub x: &'a [f32],
    /// `[m, sum of ranks]`.
    pub t: &'a [f32],
    /// `[m, n]`.
    pub dy: &'a [f32],
}

/// Computes `dx` (a placeholder unless asked for), then `dA`, `dB` of each possible part.
pub(super) fn backward(saved: Saved, factors: Factors, group: &Group, need_dx: bool) -> Vec<FlexTensor> {
    on_unit!(group, backward_on(saved, factors, group, need_dx))
}

fn backward_on<U: Unit>(
    unit: U,
    saved: Saved,
    factors: Factors,
    group: &Group,
    need_dx: bool,
) -> Vec<FlexTensor> {
    let (k, n, ranks) = (group.in_features(), group.out_features(), group.ranks());
    let m = saved.x.len() / k;
    let mut grads = vec![placeholder()];
    let mut shares = Vec::with_capacity(group.parts.len());
    let mut lefts = Vec::with_capacity(group.parts.len());
    let (mut column, mut rank_column) = (0, 0);
    for (part, factors) in group.parts.iter().zip(factors.chunks_exact(2)) {
        let out = part.weight.shape()[0];
        let dy = View { data: &saved.dy[column.min(m * n)..], stride: n };
        let left = unit.left(m, out, dy);
        let mut u = Vec::new();
        if let Some(lora) = part.lora {
            let t = View { data: &saved.t[rank_column.min(m * ranks)..], stride: ranks };
            let sizes = Sizes { m, k, out };
            u = up(unit, &left, slice(&factors[1]), lora, sizes);
            let da = grad_a(unit, saved.x, &u, lora, sizes);
            let db = grad_b(unit, dy, t, lora, sizes);
            grads.extend([tensor(da, [lora.rank, k]), tensor(db, [out, lora.rank])]);
            rank_column += lora.rank;
        } else {
            grads.extend([placeholder(), placeholder()]);
        }
        lefts.push(left);
        shares.push(u);
        column += out;
    }
    grads.resize_with(1 + 2 * MAX_PARTS, placeholder);
    if need_dx {
        grads[0] = tensor(input_gradient(unit, &lefts, &shares, factors, group, m), [m, k]);
    }
    grads
}

#[derive(Clone, Copy)]
struct Sizes {
    m: usize,
    k: usize,
    out: usize,
}

/// Computes `u = scale * dy . B`, `[m, rank]`.
fn up<U: Unit>(unit: U, dy: &U::Left<'_>, b: &[f32], lora: LowRank, sizes: Sizes) -> Vec<f32> {
    let Sizes { m, out, .. } = sizes;
    let mut u = vec![0.0f32; m * lora.rank];
    let b = Operand::Dense { data: b, stride: lora.rank, shape: [out, lora.rank] };
    let c = ViewMut { data: &mut u, stride: lora.rank };
    let output = Output { m, n: lora.rank, c, start: Start::Zero };
    product(unit, output, &[Segment { left: dy, right: &b }]);
    scale(&mut u, lora.rank, lora);
    u
}

/// Computes `dA = u^T . xd`, `[rank, k]`.
fn grad_a<U: Unit>(unit: U, x: &[f32], u: &[f32], lora: LowRank, sizes: Sizes) -> Vec<f32> {
    let Sizes { m, k, .. } = sizes;
    let xd = dropped(x, lora);
    let x = View { data: xd.as_deref().unwrap_or(x), stride: k };
    over_tokens(unit, View { data: u, stride: lora.rank }, lora.rank, x, k, m)
}

/// Computes `dB = dy^T . t`, `[out, rank]`.
fn grad_b<U: Unit>(unit: U, dy: View, t: View, lora: LowRank, sizes: Sizes) -> Vec<f32> {
    let Sizes { m, out, .. } = sizes;
    let db = over_tokens(unit, t, lora.rank, dy, out, m);
    transposed(View { data: &db, stride: out }, lora.rank, out)
}

/// Computes `narrow^T . wide`, `[rank, width]`, over `m` tokens.
fn over_tokens<U: Unit>(unit: U, narrow: View, rank: usize, wide: View, width: usize, m: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; rank * width];
    let narrow = transposed(narrow, m, rank);
    let left = unit.left(rank, m, View { data: &narrow, stride: m });
    let mut c = ViewMut { data: &mut out, stride: width };
    if !unit.few_rows(rank, width, m, &left, wide, &mut c) {
        let right = Operand::Dense { data: wide.data, stride: wide.stride, shape: [m, width] };
        let output = Output { m: rank, n: width, c, start: Start::Zero };
        product(unit, output, &[Segment { left: &left, right: &right }]);
    }
    out
}

/// Computes `dx` from each part's packed `dy`, and `u`.
fn input_gradient<'a, U: Unit>(
    unit: U,
    lefts: &[U::Left<'a>],
    shares: &'a [Vec<f32>],
    factors: Factors,
    group: &Group,
    m: usize,
) -> Vec<f32> {
    let k = group.in_features();
    let weights: Vec<_> = group.parts.iter().map(|part| Operand::Weight(&part.weight)).collect();
    let parts = group.parts.iter().zip(factors.chunks_exact(2)).zip(shares);
    let low: Vec<_> = parts
        .map(|((part, factors), u)| {
            let lora = part.lora?;
            let a = Operand::Dense { data: slice(&factors[0]), stride: k, shape: [lora.rank, k] };
            Some((lora, unit.left(m, lora.rank, View { data: u, stride: lora.rank }), a))
        })
        .collect();
    let mut segments = Vec::with_capacity(2 * weights.len());
    for ((left, right), low) in lefts.iter().zip(&weights).zip(&low) {
        segments.push(Segment { left, right });
        if let Some((LowRank { dropout: None, .. }, left, right)) = low {
            segments.push(Segment { left, right });
        }
    }
    #[expect(unsafe_code, reason = "the kernel writes every element")]
    // SAFETY: the product writes every element of `dx`.
    let mut dx = unsafe { unwritten(m * k) };
    let output = Output { m, n: k, c: ViewMut { data: &mut dx, stride: k }, start: Start::Zero };
    product(unit, output, &segments);
    for (lora, left, right) in low.iter().flatten() {
        let Some(dropout) = lora.dropout else { continue };
        let mut share = vec![0.0f32; m * k];
        let c = ViewMut { data: &mut share, stride: k };
        product(unit, Output { m, n: k, c, start: Start::Zero }, &[Segment { left, right }]);
        dropout.apply(&mut share);
        dx.par_iter_mut().zip(share).for_each(|(dx, share)| *dx += share);
    }
    dx
}

/// Transposes a `[rows, cols]` matrix, on all threads.
pub(crate) fn transposed(matrix: View, rows: usize, cols: usize) -> Vec<f32> {
    /// Rows that are read together, so that writes fill cache lines.
    const GROUP: usize = 16;
    let mut out = vec![0.0f32; rows * cols];
    out.par_chunks_mut((GROUP * rows).max(1)).enumerate().for_each(|(group, out)| {
        for row in (0..rows).step_by(GROUP) {
            let count = GROUP.min(rows - row);
            for (col, out) in out.chunks_exact_mut(rows).enumerate() {
                let from = row * matrix.stride + group * GROUP + col;
                for (i, out) in out[row..row + count].iter_mut().enumerate() {
                    *out = matrix.data[from + i * matrix.stride];
                }
            }
        }
    });
    out
}

fn placeholder() -> FlexTensor {
    tensor(vec![0.0], [1, 1])
}
