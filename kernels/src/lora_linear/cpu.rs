//! The forward pass on the CPU.

use burn_flex::FlexTensor;

use super::{FrozenPart, Group, LowRank, MAX_PARTS};
use crate::flex::{slice, tensor};
use crate::frozen::{Compute, round_to_bf16};
use crate::matmul::{Mode, Operand, View, ViewMut, matmul};

/// The factors `[A, B]` of each part.
pub(super) type FactorRefs<'a> = [[&'a FlexTensor; 2]; MAX_PARTS];

pub(super) fn forward(x: &[f32], factors: FactorRefs, group: &Group) -> FlexTensor {
    let (k, n) = (group.in_features(), group.out_features());
    let m = x.len() / k;
    let mut y = vec![0.0f32; m * n];
    let rounded = matmul_input(x, group);
    let mut column = 0;
    for (part, [a, b]) in group.parts.iter().zip(factors) {
        let out = part.weight.shape()[0];
        let view = View { data: rounded.as_deref().unwrap_or(x), stride: k };
        let c = ViewMut { data: &mut y[column.min(m * n)..], stride: n };
        matmul(m, out, k, view, &Operand::WeightTransposed(&part.weight), c, Mode::Write);
        if let Some(lora) = part.lora {
            let t = down(x, slice(a), m, k, lora);
            let b = Operand::Transposed { data: slice(b), shape: [lora.rank, out] };
            let c = ViewMut { data: &mut y[column.min(m * n)..], stride: n };
            matmul(m, out, lora.rank, View { data: &t, stride: lora.rank }, &b, c, Mode::Add);
        }
        add_bias(&mut y, part, column, n);
        column += out;
    }
    tensor(y, [m, n])
}

/// Returns the input rounded to bf16 where the group computes in bf16.
pub(super) fn matmul_input(x: &[f32], group: &Group) -> Option<Vec<f32>> {
    let compute = group.parts[0].weight.compute();
    (compute == Compute::Bf16).then(|| {
        let mut rounded = x.to_vec();
        round_to_bf16(&mut rounded);
        rounded
    })
}

/// Computes `scale * dropout(x) . A^T`: `[m, rank]`.
pub(super) fn down(x: &[f32], a: &[f32], m: usize, k: usize, lora: LowRank) -> Vec<f32> {
    let dropped = dropped(x, lora);
    let mut t = vec![0.0f32; m * lora.rank];
    let view = View { data: dropped.as_deref().unwrap_or(x), stride: k };
    let a = Operand::Transposed { data: a, shape: [k, lora.rank] };
    let c = ViewMut { data: &mut t, stride: lora.rank };
    matmul(m, lora.rank, k, view, &a, c, Mode::Write);
    for value in &mut t {
        *value *= lora.scale;
    }
    t
}

/// Returns the adapter's input after dropout, where there is dropout.
pub(super) fn dropped(x: &[f32], lora: LowRank) -> Option<Vec<f32>> {
    lora.dropout.map(|dropout| {
        let mut dropped = x.to_vec();
        dropout.apply(&mut dropped);
        dropped
    })
}

fn add_bias(y: &mut [f32], part: &FrozenPart, column: usize, n: usize) {
    if let Some(bias) = &part.bias {
        for row in y.chunks_exact_mut(n) {
            row[column..].iter_mut().zip(bias.iter()).for_each(|(y, bias)| *y += bias);
        }
    }
}
