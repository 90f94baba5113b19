//! The output and the log-sum-exp, with an online softmax.

use cubecl_core as cubecl;
use cubecl_core::prelude::*;

use super::fragment::{
    Sum, Sums, add_products, as_left, lane, left, own_row, right_columns, right_rows, store, zeros,
};
use super::mask::{HIDDEN, Numbers, Span, capped, first_block, sees, span};
use super::stage::{Rows, Run, stage};
use super::{COLUMNS, Plan};

/// What a unit knows of the softmax of its two rows: the largest score so far, and its part of the sum.
#[derive(CubeType)]
struct Softmax {
    largest: Array<f32>,
    total: Array<f32>,
}

/// A cube takes a tile of queries of one head.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn attention_forward(
    qkv: &[f32],
    tiles: &[u32],
    out: &mut [f32],
    lse: &mut [f32],
    numbers: Numbers,
    #[comptime] plan: Plan,
) {
    let (head_dim, block) = comptime!((plan.head_dim, plan.tile.block));
    let mut room_own = Shared::<[Run]>::new_aligned_slice(comptime!(plan.tile.rows * plan.line()), 32usize);
    let mut room = Shared::<[Run]>::new_aligned_slice(comptime!(2 * block * plan.line()), 32usize);
    let Span { start, first, len } = span(tiles);
    let head = CUBE_POS_Y as usize;
    let (width, heads) = (numbers.width as usize, numbers.num_heads as usize);
    let key_head = heads + head / (heads / numbers.num_kv_heads as usize);
    let value_head = key_head + numbers.num_kv_heads as usize;
    let own = own_row();

    let rows = Rows { at: (start + first) * width + head * head_dim, stride: width, count: len - first };
    stage(qkv, &rows, &mut room_own, 0usize, comptime!(plan.tile.rows), plan);
    let mut sums = zeros(comptime!(plan.padded()));
    let mut softmax = Softmax { largest: Array::<f32>::new(2usize), total: Array::<f32>::new(2usize) };
    #[unroll]
    for half in 0..2usize {
        softmax.largest[half] = HIDDEN;
        softmax.total[half] = 0.0f32;
    }
    let from = first_block(first, &numbers, plan);
    let steps = (min(first + comptime!(plan.tile.rows), len) - from).div_ceil(block);
    for step in 0..steps {
        let key = from + step * block;
        let row = (start + key) * width;
        let keys = Rows { at: row + key_head * head_dim, stride: width, count: len - key };
        let values = Rows { at: row + value_head * head_dim, stride: width, count: len - key };
        // All planes are done with the block before.
        sync_cube();
        stage(qkv, &keys, &mut room, 0usize, block, plan);
        stage(qkv, &values, &mut room, block, block, plan);
        sync_cube();
        let mut scores = zeros(block);
        #[unroll]
        for inner in 0..comptime!(plan.depth()) {
            let queries = left(&room_own, own, inner, plan);
            #[unroll]
            for pair in 0..comptime!(block / 16) {
                let keys = right_rows(&room, pair * 16, inner, plan);
                add_products(&queries, &keys, &mut scores, comptime!(2 * pair));
            }
        }
        weigh(&mut scores, &mut sums, &mut softmax, first + own, key, len, &numbers, plan);
        #[unroll]
        for pair in 0..comptime!(block / 16) {
            let weights = as_left(&scores, comptime!(2 * pair));
            #[unroll]
            for column in 0..comptime!(plan.depth()) {
                let values = right_columns(&room, comptime!(block + pair * 16), column, plan);
                add_products(&weights, &values, &mut sums, comptime!(2 * column));
            }
        }
    }
    finish(&sums, &softmax, out, lse, start + first, len - first, head, &numbers, plan);
}

/// One step of the online softmax: scores become `exp(s - max)`, and what was summed before shrinks to the new maximum.
#[cube]
fn weigh(
    scores: &mut Sums,
    sums: &mut Sums,
    softmax: &mut Softmax,
    row: usize,
    key: usize,
    len: usize,
    numbers: &Numbers,
    #[comptime] plan: Plan,
) {
    let lane = lane();
    let columns = comptime!(plan.tile.block / COLUMNS);
    #[unroll]
    for half in 0..2usize {
        let query = row + lane / 4 + half * 8;
        let old = softmax.largest[half];
        let mut new = old;
        #[unroll]
        for column in 0..columns {
            let raw = scores.index(column)[half];
            let mut both = Sum::empty();
            #[unroll]
            for i in 0..2usize {
                let score = capped(raw.extract(i) * numbers.scale, numbers, plan);
                let seen = sees(query, key + column * COLUMNS + lane % 4 * 2 + i, len, numbers, plan);
                let score = select(seen, score, HIDDEN);
                both.insert(i, score);
                new = max(new, score);
            }
            scores.index_mut(column)[half] = both;
        }
        // The four units of a row.
        new = max(new, plane_shuffle_xor(new, 1u32));
        new = max(new, plane_shuffle_xor(new, 2u32));
        let shrink = (old - new).exp();
        let mut total = softmax.total[half] * shrink;
        #[unroll]
        for column in 0..columns {
            let both = scores.index(column)[half];
            let mut weights = Sum::empty();
            #[unroll]
            for i in 0..2usize {
                let score = both.extract(i);
                let weight = select(score <= comptime!(HIDDEN / 2.0), 0.0f32, (score - new).exp());
                weights.insert(i, weight);
                total += weight;
            }
            scores.index_mut(column)[half] = weights;
        }
        softmax.largest[half] = new;
        softmax.total[half] = total;
        #[unroll]
        for column in 0..comptime!(plan.padded() / COLUMNS) {
            let sum = sums.index(column)[half];
            sums.index_mut(column)[half] = sum * Sum::new(shrink);
        }
    }
}

#[cube]
fn finish(
    sums: &Sums,
    softmax: &Softmax,
    out: &mut [f32],
    lse: &mut [f32],
    first: usize,
    count: usize,
    head: usize,
    numbers: &Numbers,
    #[comptime] plan: Plan,
) {
    let lane = lane();
    let own = own_row();
    let heads = numbers.num_heads as usize;
    let mut factors = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        let mut total = softmax.total[half];
        total += plane_shuffle_xor(total, 1u32);
        total += plane_shuffle_xor(total, 2u32);
        factors[half] = 1.0f32 / total;
        let row = own + lane / 4 + half * 8;
        if lane % 4 < 1 && row < count {
            lse[(first + row) * heads + head] = softmax.largest[half] + total.ln();
        }
    }
    let width = heads * comptime!(plan.head_dim);
    let rows = Rows { at: first * width + head * comptime!(plan.head_dim), stride: width, count };
    store(sums, out, &rows, own, &factors, plan);
}
