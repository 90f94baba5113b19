//! The gradients, by hand.
//!
//! With `t = scale * xd . A^T` (where `xd = mask * x`) and `y = x . W^T + t . B^T`:
//! - `dB = dy^T . t`
//! - `u  = scale * dy . B`                      (`[tokens, rank]`)
//! - `dA = u^T . xd`
//! - `dx = dy . W + mask * (u . A)`
//!
//! `dA` and `dB` are sums over tokens, in rising order of the token.

use burn_flex::FlexTensor;

use super::cpu::{FactorRefs, down, dropped, matmul_input};
use super::{Group, LowRank};
use crate::flex::{slice, tensor};
use crate::matmul::{Mode, Operand, View, ViewMut, matmul};

pub(super) fn backward(
    x: &[f32],
    dy: &[f32],
    factors: FactorRefs,
    group: &Group,
    need_dx: bool,
) -> [FlexTensor; 7] {
    let (k, n) = (group.in_features(), group.out_features());
    let m = x.len() / k;
    let dy_rounded = if need_dx { matmul_input(dy, group) } else { None };
    let dy_rounded = dy_rounded.as_deref().unwrap_or(dy);
    let mut dx = vec![0.0f32; if need_dx { m * k } else { 0 }];
    let mut grads = Vec::with_capacity(6);
    let mut column = 0;
    for (index, (part, [a, b])) in group.parts.iter().zip(factors).enumerate() {
        let out = part.weight.shape()[0];
        let start = column.min(m * n);
        if need_dx {
            let view = View { data: &dy_rounded[start..], stride: n };
            let mode = if index == 0 { Mode::Write } else { Mode::Add };
            matmul(
                m,
                k,
                out,
                view,
                &Operand::Weight(&part.weight),
                ViewMut { data: &mut dx, stride: k },
                mode,
            );
        }
        if let Some(lora) = part.lora {
            let sizes = Sizes { m, k, n, out };
            let dx = need_dx.then_some(&mut dx[..]);
            let [da, db] = low_rank(x, &dy[start..], slice(a), slice(b), dx, lora, sizes);
            grads.extend([tensor(da, [lora.rank, k]), tensor(db, [out, lora.rank])]);
        } else {
            grads.extend([placeholder(), placeholder()]);
        }
        column += out;
    }
    grads.resize_with(6, placeholder);
    let dx = if need_dx { tensor(dx, [m, k]) } else { placeholder() };
    let [a0, b0, a1, b1, a2, b2] = grads.try_into().expect("six gradients were made");
    [dx, a0, b0, a1, b1, a2, b2]
}

#[derive(Clone, Copy)]
struct Sizes {
    m: usize,
    k: usize,
    n: usize,
    out: usize,
}

/// Computes `[dA, dB]` of one part and adds the adapter's share to `dx`.
fn low_rank(
    x: &[f32],
    dy: &[f32],
    a: &[f32],
    b: &[f32],
    dx: Option<&mut [f32]>,
    lora: LowRank,
    Sizes { m, k, n, out }: Sizes,
) -> [Vec<f32>; 2] {
    let rank = lora.rank;
    let t = transposed(&down(x, a, m, k, lora), m, rank);
    let mut db = vec![0.0f32; rank * out];
    let dy_operand = Operand::Dense { data: dy, stride: n, shape: [m, out] };
    let c = ViewMut { data: &mut db, stride: out };
    matmul(rank, out, m, View { data: &t, stride: m }, &dy_operand, c, Mode::Write);
    let db = transposed(&db, rank, out);

    let mut u = vec![0.0f32; m * rank];
    let b_operand = Operand::Dense { data: b, stride: rank, shape: [out, rank] };
    let c = ViewMut { data: &mut u, stride: rank };
    matmul(m, rank, out, View { data: dy, stride: n }, &b_operand, c, Mode::Write);
    for value in &mut u {
        *value *= lora.scale;
    }

    let xd = dropped(x, lora);
    let mut da = vec![0.0f32; rank * k];
    let x_operand = Operand::Dense { data: xd.as_deref().unwrap_or(x), stride: k, shape: [m, k] };
    let c = ViewMut { data: &mut da, stride: k };
    matmul(rank, k, m, View { data: &transposed(&u, m, rank), stride: m }, &x_operand, c, Mode::Write);

    if let Some(dx) = dx {
        add_input_gradient(dx, &u, a, lora, m, k);
    }
    [da, db]
}

/// Adds `mask * (u . A)` to `dx`.
fn add_input_gradient(dx: &mut [f32], u: &[f32], a: &[f32], lora: LowRank, m: usize, k: usize) {
    let a = Operand::Dense { data: a, stride: k, shape: [lora.rank, k] };
    let u = View { data: u, stride: lora.rank };
    match lora.dropout {
        None => matmul(m, k, lora.rank, u, &a, ViewMut { data: dx, stride: k }, Mode::Add),
        Some(dropout) => {
            let mut share = vec![0.0f32; m * k];
            matmul(m, k, lora.rank, u, &a, ViewMut { data: &mut share, stride: k }, Mode::Write);
            dropout.apply(&mut share);
            dx.iter_mut().zip(share).for_each(|(dx, share)| *dx += share);
        }
    }
}

fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; values.len()];
    for (i, row) in values.chunks_exact(cols.max(1)).enumerate() {
        for (j, value) in row.iter().enumerate() {
            out[j * rows + i] = *value;
        }
    }
    out
}

fn placeholder() -> FlexTensor {
    tensor(vec![0.0], [1, 1])
}
