//! What happens to rows between the products.

use cubecl_core as cubecl;
use cubecl_core::prelude::*;

use crate::lora_linear::tensor_core::Kind;
use crate::lora_linear::tensor_core::stage::element;

/// Units of a cube.
pub(crate) const UNITS: usize = 256;
const PLANE: usize = 32;
/// Stands for the place of a row without a target.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Adds one value of each unit of the cube, in a fixed tree; every unit gets the sum. `room` is free again afterwards.
#[cube]
fn cube_sum(value: f32, room: &mut Shared<[f32]>) -> f32 {
    let mut sum = value;
    #[unroll]
    for level in 0..5u32 {
        sum += plane_shuffle_xor(sum, comptime!(16u32 >> level));
    }
    if UNIT_POS % (PLANE as u32) < 1u32 {
        room[UNIT_POS as usize / PLANE] = sum;
    }
    sync_cube();
    let mut all = room[0usize];
    #[unroll]
    for plane in 1..comptime!(UNITS / PLANE) {
        all += room[plane];
    }
    sync_cube();
    all
}

/// The largest value of all units of the cube; NaN wins, so that it reaches the loss.
#[cube]
fn cube_max(value: f32, room: &mut Shared<[f32]>) -> f32 {
    let mut most = value;
    #[unroll]
    for level in 0..5u32 {
        most = larger(most, plane_shuffle_xor(most, comptime!(16u32 >> level)));
    }
    if UNIT_POS % (PLANE as u32) < 1u32 {
        room[UNIT_POS as usize / PLANE] = most;
    }
    sync_cube();
    let mut all = room[0usize];
    #[unroll]
    for plane in 1..comptime!(UNITS / PLANE) {
        all = larger(all, room[plane]);
    }
    sync_cube();
    all
}

#[cube]
#[allow(clippy::eq_op, reason = "a NaN is what is not itself")]
fn larger(one: f32, other: f32) -> f32 {
    select(one >= other || one != one, one, other)
}

/// Copies the rows with targets together.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn loss_gather(h: &[f32], kept: &[u32], x: &mut [f32], len: u32, hidden: u32) {
    if ABSOLUTE_POS < len as usize {
        let hidden = hidden as usize;
        let row = kept[ABSOLUTE_POS / hidden] as usize;
        x[ABSOLUTE_POS] = h[row * hidden + ABSOLUTE_POS % hidden];
    }
}

/// One step of the online softmax over a block of a row's logits, which become `exp(logit - max)`. A cube takes a row.
///
/// `state` holds of every row the largest logit, the sum of `exp`, the target's logit and the factor of the last block.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn loss_rows(
    logits: &mut [f32],
    targets: &[u32],
    state: &mut [f32],
    factor: &mut [f32],
    stride: u32,
    first: u32,
    count: u32,
) {
    let mut room = Shared::<[f32]>::new_slice(comptime!(UNITS / PLANE));
    let (row, unit) = (CUBE_POS_X as usize, UNIT_POS as usize);
    let at = row * stride as usize;
    let turns = (count as usize).div_ceil(UNITS);
    let mut most = logits[at];
    for turn in 0..turns {
        let i = turn * UNITS + unit;
        if i < count as usize {
            most = larger(most, logits[at + i]);
        }
    }
    let mut new = cube_max(most, &mut room);
    let mut shrink = 0.0f32;
    let mut before = 0.0f32;
    if first > 0 {
        let old = state[row * 3];
        before = state[row * 3 + 1];
        new = larger(old, new);
        shrink = (old - new).exp();
    }
    let target = targets[row];
    let here = target >= first && target < first + count;
    // All units have read the state, and the target's logit is read, before either is written.
    sync_cube();
    if unit == 0 && here {
        state[row * 3 + 2] = logits[at + (target - first) as usize];
    }
    sync_cube();
    let mut sum = 0.0f32;
    for turn in 0..turns {
        let i = turn * UNITS + unit;
        if i < count as usize {
            let weight = (logits[at + i] - new).exp();
            logits[at + i] = weight;
            sum += weight;
        }
    }
    let sum = cube_sum(sum, &mut room);
    if unit == 0 {
        state[row * 3] = new;
        state[row * 3 + 1] = before * shrink + sum;
        factor[row] = shrink;
    }
}

/// Adds up the losses of all rows.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn loss_sum(state: &[f32], loss: &mut [f32], rows: u32) {
    let mut room = Shared::<[f32]>::new_slice(comptime!(UNITS / PLANE));
    let unit = UNIT_POS as usize;
    let mut sum = 0.0f32;
    for turn in 0..(rows as usize).div_ceil(UNITS) {
        let row = turn * UNITS + unit;
        if row < rows as usize {
            sum += state[row * 3] - state[row * 3 + 2] + state[row * 3 + 1].ln();
        }
    }
    let sum = cube_sum(sum, &mut room);
    if unit == 0 {
        loss[0usize] = sum;
    }
}

/// `dh = (sum of exp . W) / (sum of exp) - W[target]`, and zero for rows without a target.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn loss_gradient(
    codes: &[u32],
    table: &[f32],
    places: &[u32],
    targets: &[u32],
    sums: &[f32],
    state: &[f32],
    dh: &mut [f32],
    len: u32,
    hidden: u32,
    scale_codes_at: u32,
    #[comptime] kind: Kind,
) {
    if ABSOLUTE_POS < len as usize {
        let hidden = hidden as usize;
        let (token, i) = (ABSOLUTE_POS / hidden, ABSOLUTE_POS % hidden);
        let place = places[token];
        let mut value = 0.0f32;
        if place != NOWHERE {
            let row = place as usize;
            let target = targets[row] as usize;
            let weight = element(codes, table, target * hidden + i, target, scale_codes_at as usize, kind);
            value = sums[row * hidden + i] / state[row * 3 + 1] - weight;
        }
        dh[ABSOLUTE_POS] = value;
    }
}
