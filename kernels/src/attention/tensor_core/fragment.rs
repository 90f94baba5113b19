//! Products in registers. With `g = lane / 4` and `t = lane % 4`, a unit has of the sums of 16 x 8 those of rows `g`
//! and `g + 8`, columns `2 t` and `2 t + 1`; of a left operand of 16 x 16 the same, and again eight columns further.
#![expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "on the host an `Array` is a number, in a kernel registers"
)]

use cubecl_core as cubecl;
use cubecl_core::prelude::*;
use half::bf16;

use super::stage::{Rows, Run};
use super::{COLUMNS, FRAGMENT, PLANE, Plan};

/// Two neighbours of an operand.
pub(super) type Pair = Vector<bf16, Const<2>>;
/// Two neighbouring sums.
pub(super) type Sum = Vector<f32, Const<2>>;
/// Sums of 16 rows, eight columns after another; of each a unit has two pairs, of rows `g` and `g + 8`.
pub(super) type Sums = Sequence<Array<Sum>>;

/// This unit's place in its plane.
#[cube]
pub(super) fn lane() -> usize {
    (UNIT_POS % PLANE as u32) as usize
}

/// The first row that this unit's plane owns, in the tile.
#[cube]
pub(super) fn own_row() -> usize {
    (UNIT_POS / PLANE as u32) as usize * FRAGMENT
}

#[cube]
pub(super) fn zeros(#[comptime] columns: usize) -> Sums {
    let mut sums = Sums::new();
    #[unroll]
    for _ in 0..comptime!(columns / COLUMNS) {
        let mut both = Array::<Sum>::new(2usize);
        both[0] = Sum::new(0.0f32);
        both[1] = Sum::new(0.0f32);
        sums.push(both);
    }
    sums
}

#[cube]
fn load(run: &[Run], #[comptime] transpose: bool) -> Array<Pair> {
    let unit = cmma::MmaDefinition::<bf16, bf16, f32>::new(FRAGMENT, COLUMNS, FRAGMENT);
    unit.load_matrix::<Run, Const<2>>(run, cmma::MatrixIdent::A, 4usize, transpose)
}

/// Elements `16 inner ..` of 16 rows from line `row` on, as a left operand.
#[cube]
pub(super) fn left(room: &Shared<[Run]>, row: usize, inner: usize, #[comptime] plan: Plan) -> Array<Pair> {
    let lane = lane();
    let at = (row + lane % 16) * comptime!(plan.line()) + inner * 2 + lane / 16;
    load(&room[at..=at], false)
}

/// The same rows as two right operands whose columns they are.
#[cube]
pub(super) fn right_rows(
    room: &Shared<[Run]>,
    row: usize,
    inner: usize,
    #[comptime] plan: Plan,
) -> Array<Pair> {
    let lane = lane();
    let at = (row + lane / 16 * 8 + lane % 8) * comptime!(plan.line()) + inner * 2 + lane / 8 % 2;
    load(&room[at..=at], false)
}

/// Elements `16 column ..` of 16 rows as two right operands whose inner axis the rows are.
#[cube]
pub(super) fn right_columns(
    room: &Shared<[Run]>,
    row: usize,
    column: usize,
    #[comptime] plan: Plan,
) -> Array<Pair> {
    let lane = lane();
    let at = (row + lane / 8 % 2 * 8 + lane % 8) * comptime!(plan.line()) + column * 2 + lane / 16;
    load(&room[at..=at], true)
}

/// Adds the products with two right operands to sums `at` and `at + 1`.
#[cube]
pub(super) fn add_products(left: &Array<Pair>, rights: &Array<Pair>, sums: &mut Sums, #[comptime] at: usize) {
    let unit = cmma::MmaDefinition::<bf16, bf16, f32>::new(FRAGMENT, COLUMNS, FRAGMENT);
    #[unroll]
    for i in 0..2usize {
        let mut right = Array::<Pair>::new(2usize);
        right[0] = rights[i * 2];
        right[1] = rights[i * 2 + 1];
        unit.execute_inplace(left, &right, sums.index_mut(at + i));
    }
}

/// Sums `at` and `at + 1` as a left operand, rounded.
#[cube]
pub(super) fn as_left(sums: &Sums, #[comptime] at: usize) -> Array<Pair> {
    let mut operand = Array::<Pair>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        let sum = sums.index(comptime!(at + i / 2))[comptime!(i % 2)];
        let mut pair = Pair::empty();
        pair.insert(0usize, bf16::cast_from(sum.extract(0usize)));
        pair.insert(1usize, bf16::cast_from(sum.extract(1usize)));
        operand[i] = pair;
    }
    operand
}

/// Writes sums times a factor for each of this unit's rows; `row` is the first of the plane's.
#[cube]
pub(super) fn store(
    sums: &Sums,
    to: &mut [f32],
    rows: &Rows,
    row: usize,
    factors: &Array<f32>,
    #[comptime] plan: Plan,
) {
    let lane = lane();
    #[unroll]
    for half in 0..2usize {
        let y = row + lane / 4 + half * 8;
        if y < rows.count {
            let at = rows.at + y * rows.stride + lane % 4 * 2;
            #[unroll]
            for column in 0..comptime!(plan.padded() / COLUMNS) {
                let sum = sums.index(column)[half];
                #[unroll]
                for i in 0..2usize {
                    if comptime!(plan.whole() && column * COLUMNS < plan.head_dim)
                        || lane % 4 * 2 + comptime!(column * COLUMNS + i) < comptime!(plan.head_dim)
                    {
                        to[at + comptime!(column * COLUMNS + i)] = sum.extract(i) * factors[half];
                    }
                }
            }
        }
    }
}
