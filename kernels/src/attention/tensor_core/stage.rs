//! The way of rows from global memory into shared memory.

use cubecl_core as cubecl;
use cubecl_core::prelude::*;
use half::bf16;

use super::{Plan, RUN};

/// Runs that a unit fetches before it stores the first: more would take the registers of the sums.
const TURNS: usize = 4;

/// A run of elements as they lie in shared memory.
pub(super) type Run = Vector<bf16, Const<8>>;

/// Rows of one head.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Rows {
    /// Element at which the head of the first row starts.
    pub(super) at: usize,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    /// Rows that are there; the others are zeros.
    pub(super) count: usize,
}

/// Copies `count` rows into shared memory as bf16, from line `first` on, with zeros past the last row and element.
#[cube]
pub(super) fn stage(
    from: &[f32],
    rows: &Rows,
    room: &mut Shared<[Run]>,
    #[comptime] first: usize,
    #[comptime] count: usize,
    #[comptime] plan: Plan,
) {
    let in_line = comptime!(plan.padded() / RUN);
    let units = comptime!(plan.tile.units());
    let turns = comptime!(if plan.whole() { TURNS } else { 1 });
    for batch in 0..comptime!((count * in_line).div_ceil(units * turns)) {
        #[unroll]
        for turn in 0..turns {
            let number = UNIT_POS as usize + (batch * turns + turn) * units;
            if comptime!((count * in_line).is_multiple_of(units * turns))
                || number < comptime!(count * in_line)
            {
                stage_run(from, rows, room, first, number, plan);
            }
        }
    }
}

#[cube]
fn stage_run(
    from: &[f32],
    rows: &Rows,
    room: &mut Shared<[Run]>,
    #[comptime] first: usize,
    number: usize,
    #[comptime] plan: Plan,
) {
    let in_line = comptime!(plan.padded() / RUN);
    let (row, column) = (number / in_line, number % in_line * RUN);
    let mut values = Array::<f32>::new(RUN);
    #[unroll]
    for i in 0..RUN {
        values[i] = 0.0f32;
    }
    if row < rows.count && column < comptime!(plan.head_dim) {
        fetch(from, &mut values, rows.at + row * rows.stride + column, column, plan);
    }
    let mut run = Run::empty();
    #[unroll]
    for i in 0..RUN {
        run.insert(i, bf16::cast_from(values[i]));
    }
    room[(first + row) * comptime!(plan.line()) + number % in_line] = run;
}

#[cube]
fn fetch(from: &[f32], values: &mut Array<f32>, at: usize, column: usize, #[comptime] plan: Plan) {
    if comptime!(plan.whole()) {
        let vectors = from.as_vectorized().with_vector_size::<Const<4>>();
        #[unroll]
        for half in 0..2usize {
            let vector = vectors[at / 4 + half];
            #[unroll]
            for i in 0..4usize {
                values[half * 4 + i] = vector.extract(i);
            }
        }
    } else {
        #[unroll]
        for i in 0..RUN {
            if column + i < comptime!(plan.head_dim) {
                values[i] = from[at + i];
            }
        }
    }
}
