//! The forward pass on the CPU, for any unit.
//!
//! The adapter term is one more stretch of `k` of the frozen product: `y = [x | t] . [W | B]^T` with
//! `t = scale * dropout(x) . A^T`, so that the output is written once.
//!
//! # Limits
//! `2 m k n` FLOPs for the frozen part and `2 m rank (k + n)` for the adapter's. Bytes: `x` is read and packed
//! once for all projections, `y` is written once; the weight is read once for every task's rows. In f32 `x` is read where
//! it is, once for each task's columns (0.5 or 1 MB packed), and the multiply-add units are the limit: 185 of 243 GFLOP/s
//! with AVX-512, 108 of 125 with AVX2 for 576 x 1536 (Intel Xeon, family 6, model 167).

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{FrozenPart, Group, LowRank, few_rows};
use crate::flex::{slice, unwritten};
use crate::frozen::Compute;
use crate::isa::{self, Tier};
use crate::matmul::{FEW_ROWS, Operand, Output, Segment, Start, Unit, VectorUnit, View, ViewMut, product};

/// The factors of the parts: `A`, `B` of each.
pub(super) type Factors<'a> = &'a [FlexTensor];

/// Calls `$f(unit, ..)` with the unit that a group computes on.
macro_rules! on_unit {
    ($group:expr, $f:ident($($arg:expr),* $(,)?)) => {{
        let compute = $group.parts[0].weight.compute();
        #[cfg(target_arch = "x86_64")]
        let tiles = $crate::lora_linear::cpu::tiles(compute);
        #[cfg(target_arch = "x86_64")]
        if let Some(unit) = tiles {
            return $f(unit, $($arg),*);
        }
        $f($crate::lora_linear::cpu::vectors(compute), $($arg),*)
    }};
}
pub(super) use on_unit;

/// The unit of tiles, where the tier has it and the group computes in bf16.
#[cfg(target_arch = "x86_64")]
pub(super) fn tiles(compute: Compute) -> Option<crate::matmul::TileUnit> {
    (compute == Compute::Bf16 && isa::tier() == Tier::Amx).then(crate::matmul::TileUnit::new).flatten()
}

/// The unit of f32 vectors.
pub(super) fn vectors(compute: Compute) -> VectorUnit {
    VectorUnit::new(isa::tier(), compute)
}

/// Computes `y` `[m, n]` and, side by side, each adapted part's `t` `[m, sum of ranks]`.
pub(super) fn forward(
    x: &[f32],
    residual: Option<&[f32]>,
    factors: Factors,
    group: &Group,
) -> (Vec<f32>, Vec<f32>) {
    if x.len() <= FEW_ROWS * group.in_features() {
        return few_rows::forward(x, residual, factors, group);
    }
    on_unit!(group, forward_on(x, residual, factors, group))
}

fn forward_on<U: Unit>(
    unit: U,
    x: &[f32],
    residual: Option<&[f32]>,
    factors: Factors,
    group: &Group,
) -> (Vec<f32>, Vec<f32>) {
    let (k, n, ranks) = (group.in_features(), group.out_features(), group.ranks());
    let m = x.len() / k;
    let mut t = vec![0.0f32; m * ranks];
    #[expect(unsafe_code, reason = "the kernel writes every element")]
    // SAFETY: the products write every row and column of `y`.
    let mut y = unsafe { unwritten(m * n) };
    {
        let left = unit.left(m, k, View { data: x, stride: k });
        let mut column = 0;
        for (part, factors) in group.parts.iter().zip(factors.chunks_exact(2)) {
            let Some(lora) = part.lora else { continue };
            let t = ViewMut { data: &mut t[column.min(m * ranks)..], stride: ranks };
            down(unit, x, &left, slice(&factors[0]), m, k, lora, t);
            column += lora.rank;
        }
        frozen_and_low_rank(unit, &left, &t, residual, factors, group, &mut y);
    }
    (y, t)
}

/// Computes `y` from the packed input and `t`.
fn frozen_and_low_rank<'a, U: Unit>(
    unit: U,
    left: &U::Left<'a>,
    t: &'a [f32],
    residual: Option<&[f32]>,
    factors: Factors,
    group: &Group,
    y: &mut [f32],
) {
    let (n, ranks) = (group.out_features(), group.ranks());
    let m = y.len() / n;
    let (mut column, mut rank_column) = (0, 0);
    for (part, factors) in group.parts.iter().zip(factors.chunks_exact(2)) {
        let out = part.weight.shape()[0];
        let weight = Operand::WeightTransposed(&part.weight);
        let start = start(part, residual, column, n);
        let c = ViewMut { data: &mut y[column.min(m * n)..], stride: n };
        let output = Output { m, n: out, c, start };
        let frozen = Segment { left, right: &weight };
        if let Some(lora) = part.lora {
            let t = View { data: &t[rank_column.min(m * ranks)..], stride: ranks };
            let t = unit.left(m, lora.rank, t);
            let b = Operand::Transposed { data: slice(&factors[1]), shape: [lora.rank, out] };
            product(unit, output, &[frozen, Segment { left: &t, right: &b }]);
            rank_column += lora.rank;
        } else {
            product(unit, output, &[frozen]);
        }
        column += out;
    }
}

/// What a part's sums start at.
pub(super) fn start<'a>(
    part: &'a FrozenPart,
    residual: Option<&'a [f32]>,
    column: usize,
    n: usize,
) -> Start<'a> {
    let rows = residual.map(|data| View { data: &data[column.min(data.len())..], stride: n });
    let bias = part.bias.as_deref();
    if rows.is_none() && bias.is_none() { Start::Zero } else { Start::From { rows, bias } }
}

/// Computes `t = scale * dropout(x) . A^T`, `[m, rank]`; `left` is `x` packed.
fn down<U: Unit>(
    unit: U,
    x: &[f32],
    left: &U::Left<'_>,
    a: &[f32],
    m: usize,
    k: usize,
    lora: LowRank,
    t: ViewMut,
) {
    let ViewMut { data, stride } = t;
    let a = Operand::Transposed { data: a, shape: [k, lora.rank] };
    let output = Output { m, n: lora.rank, c: ViewMut { data: &mut *data, stride }, start: Start::Zero };
    match dropped(x, lora) {
        None => product(unit, output, &[Segment { left, right: &a }]),
        Some(dropped) => {
            let left = unit.left(m, k, View { data: &dropped, stride: k });
            product(unit, output, &[Segment { left: &left, right: &a }]);
        }
    }
    scale(data, stride, lora);
}

/// Multiplies the first `rank` columns of each row by the adapter's scale.
pub(super) fn scale(data: &mut [f32], stride: usize, lora: LowRank) {
    const ROWS: usize = 256;
    data.par_chunks_mut(ROWS * stride.max(1)).for_each(|rows| {
        for row in rows.chunks_mut(stride.max(1)) {
            row.iter_mut().take(lora.rank).for_each(|value| *value *= lora.scale);
        }
    });
}

/// Returns the adapter's input after dropout, where there is dropout.
pub(super) fn dropped(x: &[f32], lora: LowRank) -> Option<Vec<f32>> {
    lora.dropout.map(|dropout| {
        let mut dropped = x.to_vec();
        dropout.apply(&mut dropped);
        dropped
    })
}
