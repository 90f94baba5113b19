//! The gradients of keys and values; the formulas are derived in `attention/backward.rs`.

use cubecl_core as cubecl;
use cubecl_core::prelude::*;

use super::fragment::{
    Sum, Sums, add_products, as_left, lane, left, own_row, right_columns, right_rows, store, zeros,
};
use super::mask::{Numbers, Span, capped, sees, slope, span};
use super::stage::{Rows, Run, stage};
use super::{Gives, Plan};

/// A cube takes a tile of keys of one key head, and all query heads that read it, in order.
///
/// Scores are transposed here: their rows are keys.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn attention_keys(
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
    let mut of_rows = Shared::<[f32]>::new_slice(comptime!(2 * block));
    let Span { start, first, len } = span(tiles);
    let kv_head = CUBE_POS_Y as usize;
    let (width, heads) = (numbers.width as usize, numbers.num_heads as usize);
    let group = heads / numbers.num_kv_heads as usize;
    let key_head = heads + kv_head;
    let value_head = key_head + numbers.num_kv_heads as usize;
    let own = own_row();

    let at = (start + first) * width;
    let keys = Rows { at: at + key_head * head_dim, stride: width, count: len - first };
    let values = Rows { at: at + value_head * head_dim, stride: width, count: len - first };
    stage(qkv, &keys, &mut room_own, 0usize, rows, plan);
    if comptime!(plan.gives != Gives::Values) {
        stage(qkv, &values, &mut room_own, rows, rows, plan);
    }
    let mut d_keys = zeros(comptime!(if plan.gives == Gives::Values { 0 } else { plan.padded() }));
    let mut d_values = zeros(comptime!(if plan.gives == Gives::Keys { 0 } else { plan.padded() }));
    // The queries that see a key of this tile: from the diagonal on, as far as the window reaches.
    let mut end = len;
    if comptime!(plan.windowed) {
        end = min(len, first + comptime!(rows - 1) + numbers.window as usize);
    }
    let steps = (end - first).div_ceil(block);
    for turn in 0..group * steps {
        let head = kv_head * group + turn / steps;
        let query = first + turn % steps * block;
        let count = len - query;
        let out_width = heads * head_dim;
        let queries = Rows { at: (start + query) * width + head * head_dim, stride: width, count };
        let gradients = Rows { at: (start + query) * out_width + head * head_dim, stride: out_width, count };
        // All planes are done with the block before.
        sync_cube();
        stage(qkv, &queries, &mut room, 0usize, block, plan);
        stage(d_out, &gradients, &mut room, block, block, plan);
        if (UNIT_POS as usize) < comptime!(2 * block) {
            let row = UNIT_POS as usize % block;
            let mut value = 0.0f32;
            if row < count {
                let at = (start + query + row) * heads + head;
                if (UNIT_POS as usize) < block {
                    value = lse[at];
                } else {
                    value = delta[at];
                }
            }
            of_rows[UNIT_POS as usize] = value;
        }
        sync_cube();
        for pair in 0..comptime!(block / 16) {
            let mut scores = zeros(16usize);
            let mut d_weights = zeros(16usize);
            #[unroll]
            for inner in 0..comptime!(plan.depth()) {
                let queries = right_rows(&room, pair * 16, inner, plan);
                add_products(&left(&room_own, own, inner, plan), &queries, &mut scores, 0usize);
                if comptime!(plan.gives != Gives::Values) {
                    let gradients = right_rows(&room, pair * 16 + block, inner, plan);
                    let values = left(&room_own, own + rows, inner, plan);
                    add_products(&values, &gradients, &mut d_weights, 0usize);
                }
            }
            let place = Place { query: query + pair * 16, key: first + own, len, at: pair * 16 };
            differentiate(&mut scores, &mut d_weights, &of_rows, &place, &numbers, plan);
            let weights = as_left(&scores, 0usize);
            let d_scores = as_left(&d_weights, 0usize);
            #[unroll]
            for column in 0..comptime!(plan.depth()) {
                if comptime!(plan.gives != Gives::Keys) {
                    let gradients = right_columns(&room, pair * 16 + block, column, plan);
                    add_products(&weights, &gradients, &mut d_values, comptime!(2 * column));
                }
                if comptime!(plan.gives != Gives::Values) {
                    let queries = right_columns(&room, pair * 16, column, plan);
                    add_products(&d_scores, &queries, &mut d_keys, comptime!(2 * column));
                }
            }
        }
    }
    let mut factors = Array::<f32>::new(2usize);
    if comptime!(plan.gives != Gives::Values) {
        factors[0] = numbers.scale;
        factors[1] = numbers.scale;
        store(&d_keys, d, &keys, own, &factors, plan);
    }
    if comptime!(plan.gives != Gives::Keys) {
        factors[0] = 1.0f32;
        factors[1] = 1.0f32;
        store(&d_values, d, &values, own, &factors, plan);
    }
}

/// Where 16 queries and the 16 keys of a plane are in their segment, and the queries in their block.
#[derive(CubeType, Clone, Copy)]
struct Place {
    query: usize,
    key: usize,
    len: usize,
    at: usize,
}

/// Raw scores become probabilities, and the gradients of these those of raw scores, without the scale.
#[cube]
fn differentiate(
    scores: &mut Sums,
    d_weights: &mut Sums,
    of_rows: &Shared<[f32]>,
    place: &Place,
    numbers: &Numbers,
    #[comptime] plan: Plan,
) {
    let lane = lane();
    #[unroll]
    for column in 0..2usize {
        #[unroll]
        for half in 0..2usize {
            let key = place.key + lane / 4 + half * 8;
            let raw = scores.index(column)[half];
            let d_raw = d_weights.index(column)[half];
            let mut weights = Sum::empty();
            let mut d_scores = Sum::empty();
            #[unroll]
            for i in 0..2usize {
                let row = column * 8 + lane % 4 * 2 + i;
                let lse = of_rows[place.at + row];
                let delta = of_rows[place.at + row + comptime!(plan.tile.block)];
                let seen = sees(place.query + row, key, place.len, numbers, plan);
                let score = capped(raw.extract(i) * numbers.scale, numbers, plan);
                let weight = select(seen, (score - lse).exp(), 0.0f32);
                weights.insert(i, weight);
                let d_score = weight * (d_raw.extract(i) - delta) * slope(score, numbers, plan);
                d_scores.insert(i, d_score);
            }
            scores.index_mut(column)[half] = weights;
            d_weights.index_mut(column)[half] = d_scores;
        }
    }
}
