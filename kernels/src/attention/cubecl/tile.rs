//! What the kernels do with a tile: products over a head's elements, products over keys or queries, masks and caps.

#![expect(clippy::trivially_copy_pass_by_ref, reason = "an array of a kernel is passed as others are")]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::{BLOCK, HIDDEN, Numbers, Plan, SIDE, STRIDE};

/// Rows of a matrix that a tile reads.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Rows {
    /// Element at which the head of the first row starts.
    pub(super) at: usize,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    /// Rows that are there; the others are zeros.
    pub(super) count: usize,
}

/// This unit's row and column of a tile; its others are `SIDE` further.
#[cube]
pub(super) fn place() -> (usize, usize) {
    let unit = UNIT_POS as usize;
    (unit / SIDE, unit % SIDE)
}

/// Fetches 32 elements of each row's head, from element `start` on.
#[cube]
fn fetch(from: &[f32], rows: &Rows, room: &mut Shared<[f32]>, start: usize, #[comptime] head_dim: usize) {
    #[unroll]
    for turn in 0..comptime!(BLOCK * BLOCK / (SIDE * SIDE)) {
        let number = UNIT_POS as usize + comptime!(turn * SIDE * SIDE);
        let (row, column) = (number / BLOCK, number % BLOCK);
        let mut value = 0.0f32;
        if row < rows.count && start + column < head_dim {
            value = from[rows.at + row * rows.stride + start + column];
        }
        room[row * STRIDE + column] = value;
    }
}

/// Adds to `sums` this unit's 2 x 2 dot products of the heads of `left` and `right`.
#[cube]
pub(super) fn dots(
    left: &[f32],
    left_rows: &Rows,
    right: &[f32],
    right_rows: &Rows,
    a: &mut Shared<[f32]>,
    b: &mut Shared<[f32]>,
    sums: &mut Array<f32>,
    block: usize,
    #[comptime] head_dim: usize,
) {
    let (row, column) = place();
    let steps = comptime!(head_dim.div_ceil(BLOCK));
    for step in 0..steps {
        fetch(left, left_rows, a, step * BLOCK, head_dim);
        fetch(right, right_rows, b, step * BLOCK, head_dim);
        sync_cube();
        for inner in 0..block {
            let a0 = a[row * STRIDE + inner];
            let a1 = a[(row + SIDE) * STRIDE + inner];
            let b0 = b[column * STRIDE + inner];
            let b1 = b[(column + SIDE) * STRIDE + inner];
            sums[0] += a0 * b0;
            sums[1] += a0 * b1;
            sums[2] += a1 * b0;
            sums[3] += a1 * b1;
        }
        sync_cube();
    }
}

/// Adds to `sums` this unit's elements of `weights . rows`, or of `weights^T . rows`: for each 32 elements of a head,
/// 2 x 2.
#[cube]
pub(super) fn weigh(
    weights: &Shared<[f32]>,
    from: &[f32],
    rows: &Rows,
    b: &mut Shared<[f32]>,
    sums: &mut Array<f32>,
    block: usize,
    #[comptime] head_dim: usize,
    #[comptime] transposed: bool,
) {
    let (row, column) = place();
    let steps = comptime!(head_dim.div_ceil(BLOCK));
    #[unroll]
    for step in 0..steps {
        fetch(from, rows, b, comptime!(step * BLOCK), head_dim);
        sync_cube();
        for inner in 0..block {
            let mut at = row * STRIDE + inner;
            let mut below = (row + SIDE) * STRIDE + inner;
            if comptime!(transposed) {
                at = inner * STRIDE + row;
                below = inner * STRIDE + row + SIDE;
            }
            let (w0, w1) = (weights[at], weights[below]);
            let b0 = b[inner * STRIDE + column];
            let b1 = b[inner * STRIDE + column + SIDE];
            sums[comptime!(step * 4)] += w0 * b0;
            sums[comptime!(step * 4 + 1)] += w0 * b1;
            sums[comptime!(step * 4 + 2)] += w1 * b0;
            sums[comptime!(step * 4 + 3)] += w1 * b1;
        }
        sync_cube();
    }
}

/// Writes this unit's elements of a tile that [`weigh`] has added up, times `factor[i]` for its first and second row.
#[cube]
pub(super) fn store(
    sums: &Array<f32>,
    to: &mut [f32],
    rows: &Rows,
    factors: &Array<f32>,
    #[comptime] head_dim: usize,
) {
    let (row, column) = place();
    let steps = comptime!(head_dim.div_ceil(BLOCK));
    #[unroll]
    for step in 0..steps {
        #[unroll]
        for part in 0..4usize {
            let y = row + comptime!(part / 2 * SIDE);
            let x = column + comptime!(step * BLOCK + part % 2 * SIDE);
            if y < rows.count && x < head_dim {
                to[rows.at + y * rows.stride + x] =
                    sums[comptime!(step * 4 + part)] * factors[comptime!(part / 2)];
            }
        }
    }
}

/// Bounds a scaled score: `cap tanh(s / cap)`.
#[cube]
pub(super) fn capped(score: f32, numbers: &Numbers, #[comptime] plan: Plan) -> f32 {
    if comptime!(plan.capped) { numbers.cap * (score / numbers.cap).tanh() } else { score }
}

/// The derivative of the cap: `1 - tanh^2`, from the capped score.
#[cube]
pub(super) fn slope(score: f32, numbers: &Numbers, #[comptime] plan: Plan) -> f32 {
    if comptime!(plan.capped) {
        (1.0f32 - score / numbers.cap) * (1.0f32 + score / numbers.cap)
    } else {
        1.0f32.runtime()
    }
}

/// Whether a query of a segment of `len` rows sees a key of it.
#[cube]
pub(super) fn sees(query: usize, key: usize, len: usize, numbers: &Numbers, #[comptime] plan: Plan) -> bool {
    let mut seen = query < len && key <= query;
    if comptime!(plan.windowed) {
        seen = seen && key + numbers.window as usize > query;
    }
    seen
}

/// The first key of the first tile that the query sees.
#[cube]
pub(super) fn first_tile(query: usize, numbers: &Numbers, #[comptime] plan: Plan) -> usize {
    let mut first = 0usize.runtime();
    if comptime!(plan.windowed) {
        let window = numbers.window as usize;
        if query + 1 > window {
            first = (query + 1 - window) / BLOCK * BLOCK;
        }
    }
    first
}

/// Whether a score stands for one that the mask hides.
#[cube]
pub(super) fn is_hidden(score: f32) -> bool {
    score <= comptime!(HIDDEN / 2.0)
}
