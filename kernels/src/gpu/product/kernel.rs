//! The kernel: two walks over inner axes, then what is added, then the tile is stored.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::fetch::{fetch_left, fetch_right};
use super::store::{add_masked, write};
use super::{Masked, Plan, Side};
use crate::gpu::number::Mask;
use crate::gpu::weight::Kind;

/// Sizes and places that are known when a kernel is launched.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Places {
    pub(super) m: u32,
    pub(super) n: u32,
    pub(super) k: u32,
    pub(super) left_at: u32,
    pub(super) left_stride: u32,
    pub(super) right_at: u32,
    pub(super) right_row: u32,
    pub(super) right_width: u32,
    pub(super) scale_codes_at: u32,
    pub(super) k2: u32,
    pub(super) left2_at: u32,
    pub(super) left2_stride: u32,
    pub(super) right2_width: u32,
    pub(super) out_at: u32,
    pub(super) out_stride: u32,
    pub(super) scale: f32,
}

/// Sizes and places of one of the two products.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Walk {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) left_at: usize,
    pub(super) left_stride: usize,
    pub(super) right_at: usize,
    pub(super) right_row: usize,
    pub(super) right_width: usize,
    pub(super) scale_codes_at: usize,
}

#[cube(launch_unchecked)]
pub(super) fn product_kernel(
    left: &[f32],
    codes: &[u32],
    table: &[f32],
    left2: &[f32],
    right2: &[u32],
    extra: &[f32],
    bias: &[f32],
    out: &mut [f32],
    places: Places,
    mask: Mask,
    #[comptime] plan: Plan,
) {
    let tile = comptime!(plan.tile);
    let mut a = Shared::<[f32]>::new_slice(comptime!(tile.depth * tile.cube[0]));
    let mut b = Shared::<[f32]>::new_slice(comptime!(tile.depth * tile.cube[1]));
    let mut sums = Array::<f32>::new(comptime!(tile.unit[0] * tile.unit[1]));
    let (m, n) = (places.m as usize, places.n as usize);
    let first = Walk {
        m,
        n,
        k: places.k as usize,
        left_at: places.left_at as usize,
        left_stride: places.left_stride as usize,
        right_at: places.right_at as usize,
        right_row: places.right_row as usize,
        right_width: places.right_width as usize,
        scale_codes_at: places.scale_codes_at as usize,
    };
    accumulate(left, codes, table, &mut a, &mut b, &mut sums, &first, &mask, plan);
    let per_unit = comptime!(tile.unit[0] * tile.unit[1]);
    #[unroll]
    for i in 0..per_unit {
        sums[i] *= places.scale;
    }
    if comptime!(plan.second.is_some()) {
        let second = Walk {
            m,
            n,
            k: places.k2 as usize,
            left_at: places.left2_at as usize,
            left_stride: places.left2_stride as usize,
            right_at: 0usize.runtime(),
            right_row: 0usize.runtime(),
            right_width: places.right2_width as usize,
            scale_codes_at: 0usize.runtime(),
        };
        let side = comptime!(Plan {
            left: Side::Inner,
            right: plan.second.unwrap_or(Side::Inner),
            kind: Kind::F32,
            round_right: false,
            together: 1,
            masked: Masked::Nothing,
            ..plan
        });
        if comptime!(plan.masked == Masked::Second) {
            let mut masked = Array::<f32>::new(comptime!(tile.unit[0] * tile.unit[1]));
            accumulate(left2, right2, table, &mut a, &mut b, &mut masked, &second, &mask, side);
            add_masked(&mut sums, &masked, n, &mask, tile);
        } else {
            accumulate(left2, right2, table, &mut a, &mut b, &mut sums, &second, &mask, side);
        }
    }
    write(out, &sums, extra, bias, &places, plan);
}

/// Adds the products of this unit's elements to `sums`, in rising order of the inner index.
#[cube]
fn accumulate(
    left: &[f32],
    codes: &[u32],
    table: &[f32],
    a: &mut Shared<[f32]>,
    b: &mut Shared<[f32]>,
    sums: &mut Array<f32>,
    walk: &Walk,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    let [rows, columns] = comptime!(plan.tile.cube);
    let [unit_rows, unit_columns] = comptime!(plan.tile.unit);
    let [across_rows, across_columns] = comptime!(plan.tile.units());
    let depth = comptime!(plan.tile.depth);
    let unit = UNIT_POS as usize;
    let (row, column) = (unit / across_columns, unit % across_columns);
    let steps = walk.k.div_ceil(depth);
    for step in 0..steps {
        fetch_left(left, a, walk, step * depth, mask, plan);
        fetch_right(codes, table, b, walk, step * depth, mask, plan);
        sync_cube();
        for inner in 0..depth {
            let mut lefts = Array::<f32>::new(unit_rows);
            #[unroll]
            for i in 0..unit_rows {
                lefts[i] = a[inner * rows + row + i * across_rows];
            }
            #[unroll]
            for j in 0..unit_columns {
                let right = b[inner * columns + column + j * across_columns];
                #[unroll]
                for i in 0..unit_rows {
                    sums[i * unit_columns + j] += lefts[i] * right;
                }
            }
        }
        sync_cube();
    }
}
