//! What happens to sums before and while they are stored. Which unit holds which element of an accumulator is not
//! known, so each goes through shared memory.

use cubecl_core as cubecl;
use cubecl_core::prelude::*;

use super::number::{Mask, mask_factor};
use super::product::{Places, Sums};
use super::{FRAGMENT, Onto, PLANE, Plan, Tile};

/// Elements of a fragment that each unit of a plane handles.
const EACH: usize = FRAGMENT * FRAGMENT / PLANE;

/// First row and column of this plane's part of the output.
#[cube]
fn corner(#[comptime] tile: Tile) -> (usize, usize) {
    let plane = (UNIT_POS / PLANE as u32) as usize;
    let across = comptime!(tile.planes()[1]);
    let row = CUBE_POS_Y as usize * comptime!(tile.cube[0]) + plane / across * comptime!(tile.plane[0]);
    let column = CUBE_POS_X as usize * comptime!(tile.cube[1]) + plane % across * comptime!(tile.plane[1]);
    (row, column)
}

/// Multiplies all sums by the mask of a matrix of `n` columns.
#[cube]
pub(super) fn mask_sums(
    sums: &mut Sums,
    room: &mut Shared<[f32]>,
    n: usize,
    mask: &Mask,
    #[comptime] tile: Tile,
) {
    let (row, column) = corner(tile);
    let [down, across] = comptime!(tile.fragments());
    let plane = (UNIT_POS / PLANE as u32) as usize;
    let unit = (UNIT_POS % PLANE as u32) as usize;
    let from = plane * comptime!(FRAGMENT * FRAGMENT);
    let end = from + comptime!(FRAGMENT * FRAGMENT);
    #[unroll]
    for number in 0..comptime!(down * across) {
        cmma::store(&mut room[from..end], sums.index(number), FRAGMENT as u32, cmma::MatrixLayout::RowMajor);
        sync_plane();
        #[unroll]
        for i in 0..EACH {
            let place = i * PLANE + unit;
            let y = row + number / across * FRAGMENT + place / FRAGMENT;
            let x = column + number % across * FRAGMENT + place % FRAGMENT;
            room[from + place] *= mask_factor(mask, (y * n + x) as u64);
        }
        sync_plane();
        cmma::load_with_layout(
            sums.index_mut(number),
            &room[from..end],
            FRAGMENT as u32,
            cmma::MatrixLayout::RowMajor,
        );
        sync_plane();
    }
}

/// Writes this plane's sums, those inside the output.
#[cube]
pub(super) fn finish(
    out: &mut [f32],
    sums: &Sums,
    room: &mut Shared<[f32]>,
    extra: &[f32],
    bias: &[f32],
    places: &Places,
    #[comptime] plan: Plan,
) {
    let (row, column) = corner(comptime!(plan.tile));
    let [down, across] = comptime!(plan.tile.fragments());
    let plane = (UNIT_POS / PLANE as u32) as usize;
    let unit = (UNIT_POS % PLANE as u32) as usize;
    let from = plane * comptime!(FRAGMENT * FRAGMENT);
    let end = from + comptime!(FRAGMENT * FRAGMENT);
    let out_at = places.out_at as usize + CUBE_POS_Z as usize * places.out_part as usize;
    #[unroll]
    for number in 0..comptime!(down * across) {
        cmma::store(&mut room[from..end], sums.index(number), FRAGMENT as u32, cmma::MatrixLayout::RowMajor);
        sync_plane();
        #[unroll]
        for i in 0..EACH {
            let place = i * PLANE + unit;
            let y = row + number / across * FRAGMENT + place / FRAGMENT;
            let x = column + number % across * FRAGMENT + place % FRAGMENT;
            if y < places.m as usize && x < places.n as usize {
                let at = y * places.out_stride as usize + out_at + x;
                let mut value = room[from + place] * places.scale;
                if comptime!(plan.bias) {
                    value += bias[x];
                }
                if comptime!(plan.onto == Onto::Addend) {
                    value += extra[at];
                } else if comptime!(plan.onto == Onto::Scaled) {
                    value += out[at] * extra[y];
                }
                out[at] = value;
            }
        }
        sync_plane();
    }
}

/// Adds the outputs of the parts of an inner axis, in rising order.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn sum_parts(parts: &[f32], out: &mut [f32], len: u32, count: u32) {
    let at = ABSOLUTE_POS;
    if at < len as usize {
        let mut sum = parts[at];
        for part in 1..count as usize {
            sum += parts[part * len as usize + at];
        }
        out[at] = sum;
    }
}
