//! What is added to a unit's sums, and where they go.

#![expect(clippy::trivially_copy_pass_by_ref, reason = "an array of a kernel is passed as others are")]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::kernel::Places;
use super::tile::Tile;
use super::{Onto, Plan};
use crate::gpu::number::{Mask, mask_factor};

/// Adds elements of the second product, each times its place's factor in a matrix of `n` columns.
#[cube]
pub(super) fn add_masked(
    sums: &mut Array<f32>,
    masked: &Array<f32>,
    n: usize,
    mask: &Mask,
    #[comptime] tile: Tile,
) {
    let [unit_rows, unit_columns] = comptime!(tile.unit);
    let [across_rows, across_columns] = comptime!(tile.units());
    let unit = UNIT_POS as usize;
    let row = CUBE_POS_Y as usize * comptime!(tile.cube[0]) + unit / across_columns;
    let column = CUBE_POS_X as usize * comptime!(tile.cube[1]) + unit % across_columns;
    #[unroll]
    for i in 0..unit_rows {
        #[unroll]
        for j in 0..unit_columns {
            let at = (row + i * across_rows) * n + column + j * across_columns;
            sums[i * unit_columns + j] += masked[i * unit_columns + j] * mask_factor(mask, at as u32);
        }
    }
}

/// Writes this unit's elements, those inside the output.
#[cube]
pub(super) fn write(
    out: &mut [f32],
    sums: &Array<f32>,
    extra: &[f32],
    bias: &[f32],
    places: &Places,
    #[comptime] plan: Plan,
) {
    let [unit_rows, unit_columns] = comptime!(plan.tile.unit);
    let [across_rows, across_columns] = comptime!(plan.tile.units());
    let unit = UNIT_POS as usize;
    let row = CUBE_POS_Y as usize * comptime!(plan.tile.cube[0]) + unit / across_columns;
    let column = CUBE_POS_X as usize * comptime!(plan.tile.cube[1]) + unit % across_columns;
    #[unroll]
    for i in 0..unit_rows {
        #[unroll]
        for j in 0..unit_columns {
            let (y, x) = (row + i * across_rows, column + j * across_columns);
            if y < places.m as usize && x < places.n as usize {
                let at = y * places.out_stride as usize + places.out_at as usize + x;
                let mut value = sums[i * unit_columns + j];
                if comptime!(plan.bias) {
                    value += bias[x];
                }
                if comptime!(plan.onto == Onto::Addend) {
                    value += extra[at];
                } else if comptime!(plan.onto == Onto::Output) {
                    value += out[at];
                } else if comptime!(plan.onto == Onto::Scaled) {
                    value += out[at] * extra[y];
                }
                out[at] = value;
            }
        }
    }
}
