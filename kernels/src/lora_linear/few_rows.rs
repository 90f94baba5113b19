//! The forward pass for one or two tokens (generation): dot products with each row of the weight as it is stored.

use super::cpu::{Factors, dropped, scale};
use super::{FrozenPart, Group};
use crate::flex::slice;
use crate::frozen::{Compute, round_to_bf16};
use crate::matmul::{Mode, Operand, View, ViewMut, matmul};

/// Computes what [`super::cpu::forward`] computes.
pub(super) fn forward(
    x: &[f32],
    residual: Option<&[f32]>,
    factors: Factors,
    group: &Group,
) -> (Vec<f32>, Vec<f32>) {
    let (k, n, ranks) = (group.in_features(), group.out_features(), group.ranks());
    let m = x.len() / k;
    let mut rounded = x.to_vec();
    if group.parts[0].weight.compute() == Compute::Bf16 {
        round_to_bf16(&mut rounded);
    }
    let mut t = vec![0.0f32; m * ranks];
    let mut y = residual.map_or_else(|| vec![0.0f32; m * n], <[f32]>::to_vec);
    if m == 0 {
        return (y, t);
    }
    let (mut column, mut rank_column) = (0, 0);
    for (part, factors) in group.parts.iter().zip(factors.chunks_exact(2)) {
        let out = part.weight.shape()[0];
        add_bias(&mut y, part, column, n);
        let view = View { data: &rounded, stride: k };
        let c = ViewMut { data: &mut y[column..], stride: n };
        matmul(m, out, k, view, &Operand::WeightTransposed(&part.weight), c, Mode::Add);
        if let Some(lora) = part.lora {
            let dropped = dropped(x, lora);
            let view = View { data: dropped.as_deref().unwrap_or(&rounded), stride: k };
            let a = Operand::Transposed { data: slice(&factors[0]), shape: [k, lora.rank] };
            let c = ViewMut { data: &mut t[rank_column..], stride: ranks };
            matmul(m, lora.rank, k, view, &a, c, Mode::Write);
            scale(&mut t[rank_column..], ranks, lora);
            let view = View { data: &t[rank_column..], stride: ranks };
            let b = Operand::Transposed { data: slice(&factors[1]), shape: [lora.rank, out] };
            let c = ViewMut { data: &mut y[column..], stride: n };
            matmul(m, out, lora.rank, view, &b, c, Mode::Add);
            rank_column += lora.rank;
        }
        column += out;
    }
    (y, t)
}

fn add_bias(y: &mut [f32], part: &FrozenPart, column: usize, n: usize) {
    if let Some(bias) = &part.bias {
        for row in y.chunks_exact_mut(n) {
            row[column..].iter_mut().zip(bias.iter()).for_each(|(y, bias)| *y += bias);
        }
    }
}
