//! The gradient of queries; the formulas are derived in `attention/backward.rs`.
#![expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "on the host an `Array` is a number, in a kernel registers"
)]

use cubecl_core as cubecl;
use cubecl_core::prelude::*;

use super::fragment::{
    Sum, Sums, add_products, as_left, lane, left, own_row, right_columns, right_rows, store, zeros,
};
use super::mask::{Numbers, Span, capped, first_block, sees, slope, span};
use super::stage::{Rows, Run, stage};
use super::{COLUMNS, Plan};

/// Keys whose scores are in registers at one time.
const KEYS: usize = 32;

/// A cube takes a tile of queries of one head.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn attention_queries(
    qkv: &[f32],
    d_out: &[f32],
    lse: &[f32],
    delta: &[f32],
    tiles: &[u32],
    d: &mut [f32],
    numbers: Numbers,
    #[comptime] plan: Plan,
) {
    let (head_dim, block, rows) = comptime!((plan.head_dim, plan.tile.block, plan.tile.rows));
    let mut room_own = Shared::<[Run]>::new_aligned_slice(comptime!(2 * rows * plan.line()), 32usize);
    let mut room = Shared::<[Run]>::new_aligned_slice(comptime!(2 * block * plan.line()), 32usize);
    let Span { start, first, len } = span(tiles);
    let head = CUBE_POS_Y as usize;
    let (width, heads) = (numbers.width as usize, numbers.num_heads as usize);
    let key_head = heads + head / (heads / numbers.num_kv_heads as usize);
    let value_head = key_head + numbers.num_kv_heads as usize;
    let own = own_row();

    let count = len - first;
    let queries = Rows { at: (start + first) * width + head * head_dim, stride: width, count };
    let out_width = heads * head_dim;
    let gradients = Rows { at: (start + first) * out_width + head * head_dim, stride: out_width, count };
    stage(qkv, &queries, &mut room_own, 0usize, rows, plan);
    stage(d_out, &gradients, &mut room_own, rows, rows, plan);
    let (mut row_lse, mut row_delta) = (Array::<f32>::new(2usize), Array::<f32>::new(2usize));
    #[unroll]
    for half in 0..2usize {
        let row = own + lane() / 4 + half * 8;
        row_lse[half] = 0.0f32;
        row_delta[half] = 0.0f32;
        if row < count {
            row_lse[half] = lse[(start + first + row) * heads + head];
            row_delta[half] = delta[(start + first + row) * heads + head];
        }
    }

    let mut sums = zeros(comptime!(plan.padded()));
    let from = first_block(first, &numbers, plan);
    let steps = (min(first + comptime!(plan.tile.rows), len) - from).div_ceil(block);
    for step in 0..steps {
        let key = from + step * block;
        let row = (start + key) * width;
        let keys = Rows { at: row + key_head * head_dim, stride: width, count: len - key };
        let values = Rows { at: row + value_head * head_dim, stride: width, count: len - key };
        sync_cube();
        stage(qkv, &keys, &mut room, 0usize, block, plan);
        stage(qkv, &values, &mut room, block, block, plan);
        sync_cube();
        // 32 keys at a time: each operand of the left is loaded once for four products.
        for part in 0..comptime!(block / KEYS) {
            let mut scores = zeros(KEYS);
            let mut d_weights = zeros(KEYS);
            #[unroll]
            for inner in 0..comptime!(plan.depth()) {
                let queries = left(&room_own, own, inner, plan);
                let gradients = left(&room_own, own + rows, inner, plan);
                #[unroll]
                for pair in 0..comptime!(KEYS / 16) {
                    let row = part * KEYS + pair * 16;
                    add_products(
                        &queries,
                        &right_rows(&room, row, inner, plan),
                        &mut scores,
                        comptime!(2 * pair),
                    );
                    let values = right_rows(&room, row + block, inner, plan);
                    add_products(&gradients, &values, &mut d_weights, comptime!(2 * pair));
                }
            }
            let place = Place { query: first + own, key: key + part * KEYS, len };
            differentiate(&mut scores, &d_weights, &row_lse, &row_delta, &place, &numbers, plan);
            #[unroll]
            for pair in 0..comptime!(KEYS / 16) {
                let d_scores = as_left(&scores, comptime!(2 * pair));
                #[unroll]
                for column in 0..comptime!(plan.depth()) {
                    let keys = right_columns(&room, part * KEYS + pair * 16, column, plan);
                    add_products(&d_scores, &keys, &mut sums, comptime!(2 * column));
                }
            }
        }
    }
    let mut factors = Array::<f32>::new(2usize);
    factors[0] = numbers.scale;
    factors[1] = numbers.scale;
    store(&sums, d, &queries, own, &factors, plan);
}

/// Where the 16 queries of a plane and the keys are in their segment.
#[derive(CubeType, Clone, Copy)]
struct Place {
    query: usize,
    key: usize,
    len: usize,
}

/// Raw scores become the gradients of raw scores, without the scale.
#[cube]
fn differentiate(
    scores: &mut Sums,
    d_weights: &Sums,
    lse: &Array<f32>,
    delta: &Array<f32>,
    place: &Place,
    numbers: &Numbers,
    #[comptime] plan: Plan,
) {
    let lane = lane();
    #[unroll]
    for half in 0..2usize {
        let query = place.query + lane / 4 + half * 8;
        #[unroll]
        for column in 0..comptime!(KEYS / COLUMNS) {
            let raw = scores.index(column)[half];
            let d_weight = d_weights.index(column)[half];
            let mut both = Sum::empty();
            #[unroll]
            for i in 0..2usize {
                let key = place.key + column * 8 + lane % 4 * 2 + i;
                let score = capped(raw.extract(i) * numbers.scale, numbers, plan);
                let weight = (score - lse[half]).exp();
                let d_score = weight * (d_weight.extract(i) - delta[half]) * slope(score, numbers, plan);
                both.insert(i, select(sees(query, key, place.len, numbers, plan), d_score, 0.0f32));
            }
            scores.index_mut(column)[half] = both;
        }
    }
}
