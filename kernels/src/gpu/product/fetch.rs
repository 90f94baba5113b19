//! Stretches of both operands, from the device's memory into shared memory.

#![expect(clippy::trivially_copy_pass_by_ref, reason = "an array of a kernel is passed as others are")]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::kernel::Walk;
use super::{Masked, Plan, Side};
use crate::gpu::number::{Mask, mask_factor, round_bf16};
use crate::gpu::weight::{element, elements_of_word};

/// Fetches `depth` inner indices of the cube's rows.
#[cube]
pub(super) fn fetch_left(
    left: &[f32],
    a: &mut Shared<[f32]>,
    walk: &Walk,
    start: usize,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    let rows = comptime!(plan.tile.cube[0]);
    let depth = comptime!(plan.tile.depth);
    let units = comptime!(plan.tile.units()[0] * plan.tile.units()[1]);
    let first = CUBE_POS_Y as usize * rows;
    #[unroll]
    for turn in 0..comptime!(rows * depth / units) {
        let place = UNIT_POS as usize + turn * units;
        let mut row = place / depth;
        let mut inner = place % depth;
        if comptime!(plan.left == Side::Outer) {
            row = place % rows;
            inner = place / rows;
        }
        let mut value = 0.0f32;
        let (i, k) = (first + row, start + inner);
        if i < walk.m && k < walk.k {
            let mut at = walk.left_at + i * walk.left_stride + k;
            if comptime!(plan.left == Side::Outer) {
                at = walk.left_at + k * walk.left_stride + i;
            }
            value = left[at];
            if comptime!(plan.masked == Masked::Left) {
                value *= mask_factor(mask, at as u32);
            }
            if comptime!(plan.round_left) {
                value = round_bf16(value);
            }
        }
        a[inner * rows + row] = value;
    }
}

/// Fetches, and decodes, `depth` inner indices of the cube's columns.
#[cube]
pub(super) fn fetch_right(
    codes: &[u32],
    table: &[f32],
    b: &mut Shared<[f32]>,
    walk: &Walk,
    start: usize,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    let columns = comptime!(plan.tile.cube[1]);
    let depth = comptime!(plan.tile.depth);
    let units = comptime!(plan.tile.units()[0] * plan.tile.units()[1]);
    let together = comptime!(plan.together);
    let first = CUBE_POS_X as usize * columns;
    let stretches = comptime!(columns * depth / together);
    #[unroll]
    for turn in 0..comptime!(stretches.div_ceil(units)) {
        let place = UNIT_POS as usize + turn * units;
        // Column and inner index of the first element, and how far the next is in shared memory.
        let mut column = place / comptime!(depth / together);
        let mut inner = place % comptime!(depth / together) * together;
        if comptime!(plan.right == Side::Outer) {
            column = place % comptime!(columns / together) * together;
            inner = place / comptime!(columns / together);
        }
        let next = comptime!(if plan.right == Side::Outer { 1 } else { columns });
        let mut values = Array::<f32>::new(together);
        #[unroll]
        for i in 0..together {
            values[i] = 0.0f32;
        }
        let (j, k) = (first + column, start + inner);
        if j < walk.n && k < walk.k {
            let mut row = walk.right_row + j;
            let mut at = walk.right_at + row * walk.right_width + k;
            if comptime!(plan.right == Side::Outer) {
                row = walk.right_row + k;
                at = walk.right_at + row * walk.right_width + j;
            }
            if comptime!(together == 1) {
                values[0] = element(codes, table, at, row, walk.scale_codes_at, plan.kind);
            } else {
                elements_of_word(codes, table, at, row, walk.scale_codes_at, &mut values, plan.kind);
            }
            if comptime!(plan.masked == Masked::Right) {
                #[unroll]
                for i in 0..together {
                    values[i] *= mask_factor(mask, (at + i) as u32);
                }
            }
            if comptime!(plan.round_right) {
                #[unroll]
                for i in 0..together {
                    values[i] = round_bf16(values[i]);
                }
            }
        }
        let to = inner * columns + column;
        if place < stretches {
            put(b, to, next, &values, together);
        }
    }
}

/// Writes values to shared memory, each `next` elements behind the one before.
#[cube]
fn put(
    b: &mut Shared<[f32]>,
    to: usize,
    #[comptime] next: usize,
    values: &Array<f32>,
    #[comptime] count: usize,
) {
    #[unroll]
    for i in 0..count {
        b[to + i * next] = values[i];
    }
}
