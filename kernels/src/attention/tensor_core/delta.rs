//! `delta = do . o` for every row and head.

use cubecl_core as cubecl;
use cubecl_core::prelude::*;

use super::PLANE;

/// Units of a cube.
pub(crate) const UNITS: usize = 128;

/// A plane takes a row of a head: its units add up every 32nd product, then their sums as a tree.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn attention_delta(out: &[f32], d_out: &[f32], delta: &mut [f32], rows: u32, head_dim: u32) {
    let lane = (UNIT_POS % PLANE as u32) as usize;
    let row = CUBE_POS_X as usize * comptime!(UNITS / PLANE) + (UNIT_POS / PLANE as u32) as usize;
    let width = head_dim as usize;
    let mut sum = 0.0f32;
    if row < rows as usize {
        for turn in 0..width.div_ceil(PLANE) {
            let i = turn * PLANE + lane;
            if i < width {
                sum += out[row * width + i] * d_out[row * width + i];
            }
        }
    }
    #[unroll]
    for level in 0..5u32 {
        sum += plane_shuffle_xor(sum, comptime!(16u32 >> level));
    }
    if lane == 0 && row < rows as usize {
        delta[row] = sum;
    }
}
