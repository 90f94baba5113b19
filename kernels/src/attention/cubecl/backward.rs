//! The gradient; the formulas are derived in `attention/backward.rs`.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::tile::{Rows, capped, dots, first_tile, place, sees, slope, store, weigh};
use super::{AttentionConfig, BLOCK, Numbers, Plan, QkvLayout, SIDE, STRIDE};
use crate::gpu::{self, arg};

/// Units of a cube of the kernel of deltas.
const UNITS: u32 = 64;

#[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
pub(super) fn launch(
    [qkv, out, lse, d_out]: [CubeTensor; 4],
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
) -> CubeTensor {
    let [tokens, width] = gpu::dims(&qkv);
    let d = gpu::empty(&qkv, [tokens, width]);
    let (tiles, count) = super::tiles(&qkv.client, segments);
    if count == 0 {
        return d;
    }
    let delta = gpu::empty(&qkv, [tokens, layout.num_heads]);
    let rows = tokens * layout.num_heads;
    // SAFETY: tiles lie in segments, which end at the last row; there is a delta a row and head.
    unsafe {
        delta_kernel::launch_unchecked(
            &qkv.client,
            gpu::cubes(rows.div_ceil(UNITS as usize)),
            CubeDim::new_1d(UNITS),
            arg(&out),
            arg(&d_out),
            arg(&delta),
            rows as u32,
            layout.head_dim as u32,
        );
        dq_kernel::launch_unchecked(
            &qkv.client,
            super::cubes(count, layout.num_heads),
            super::units(),
            arg(&qkv),
            arg(&d_out),
            arg(&lse),
            arg(&delta),
            tiles.arg(),
            arg(&d),
            super::numbers(layout, cfg),
            super::plan(layout, cfg),
        );
        dkv_kernel::launch_unchecked(
            &qkv.client,
            super::cubes(count, layout.num_kv_heads),
            super::units(),
            arg(&qkv),
            arg(&d_out),
            arg(&lse),
            arg(&delta),
            tiles.arg(),
            arg(&d),
            super::numbers(layout, cfg),
            super::plan(layout, cfg),
        );
    }
    d
}

/// `delta = do . o` for every row and head.
#[cube(launch_unchecked)]
fn delta_kernel(out: &[f32], d_out: &[f32], delta: &mut [f32], rows: u32, head_dim: u32) {
    if ABSOLUTE_POS < rows as usize {
        let at = ABSOLUTE_POS * head_dim as usize;
        let mut sum = 0.0f32;
        for i in 0..head_dim as usize {
            sum += out[at + i] * d_out[at + i];
        }
        delta[ABSOLUTE_POS] = sum;
    }
}

/// Where a tile of queries of one head and a tile of keys lie.
#[derive(CubeType, Clone, Copy)]
struct Pair {
    start: usize,
    query: usize,
    key: usize,
    len: usize,
    head: usize,
}

/// Computes probabilities into `p` and the gradients of raw scores (without the scale) into `ds`, which may be the
/// room `a` of the products.
#[cube]
fn gradients(
    qkv: &[f32],
    d_out: &[f32],
    lse: &[f32],
    delta: &[f32],
    a: &mut Shared<[f32]>,
    b: &mut Shared<[f32]>,
    p: &mut Shared<[f32]>,
    pair: &Pair,
    numbers: &Numbers,
    #[comptime] plan: Plan,
) {
    let head_dim = comptime!(plan.head_dim);
    let (width, block) = (numbers.width as usize, numbers.block as usize);
    let heads = numbers.num_heads as usize;
    let key_head = heads + pair.head / comptime!(plan.group);
    let value_head = key_head + numbers.num_kv_heads as usize;
    let (q_first, k_first) = (pair.start + pair.query, pair.start + pair.key);
    let (queries, keys) = (pair.len - pair.query, pair.len - pair.key);
    let q_rows = Rows { at: q_first * width + pair.head * head_dim, stride: width, count: queries };
    let k_rows = Rows { at: k_first * width + key_head * head_dim, stride: width, count: keys };
    let v_rows = Rows { at: k_first * width + value_head * head_dim, stride: width, count: keys };
    let q_width = heads * head_dim;
    let o_rows = Rows { at: q_first * q_width + pair.head * head_dim, stride: q_width, count: queries };
    let mut scores = Array::<f32>::new(4usize);
    let mut dp = Array::<f32>::new(4usize);
    dots(qkv, &q_rows, qkv, &k_rows, a, b, &mut scores, block, head_dim);
    dots(d_out, &o_rows, qkv, &v_rows, a, b, &mut dp, block, head_dim);
    let (row, column) = place();
    #[unroll]
    for part in 0..4usize {
        let y = row + comptime!(part / 2 * SIDE);
        let x = column + comptime!(part % 2 * SIDE);
        let mut probability = 0.0f32;
        let mut ds = 0.0f32;
        if sees(pair.query + y, pair.key + x, pair.len, numbers, plan) {
            let at = (q_first + y) * heads + pair.head;
            let score = capped(scores[part] * numbers.scale, numbers, plan);
            probability = (score - lse[at]).exp();
            ds = probability * (dp[part] - delta[at]) * slope(score, numbers, plan);
        }
        p[y * STRIDE + x] = probability;
        a[y * STRIDE + x] = ds;
    }
    sync_cube();
}

#[cube(launch_unchecked)]
fn dq_kernel(
    qkv: &[f32],
    d_out: &[f32],
    lse: &[f32],
    delta: &[f32],
    tiles: &[u32],
    d: &mut [f32],
    numbers: Numbers,
    #[comptime] plan: Plan,
) {
    let head_dim = comptime!(plan.head_dim);
    let mut a = Shared::<[f32]>::new_slice(comptime!(BLOCK * STRIDE));
    let mut b = Shared::<[f32]>::new_slice(comptime!(BLOCK * STRIDE));
    let mut p = Shared::<[f32]>::new_slice(comptime!(BLOCK * STRIDE));
    let head = CUBE_POS_Y as usize;
    let tile = CUBE_POS_X as usize * 3;
    let (start, query, len) = (tiles[tile] as usize, tiles[tile + 1] as usize, tiles[tile + 2] as usize);
    let (width, block) = (numbers.width as usize, numbers.block as usize);
    let key_head = numbers.num_heads as usize + head / comptime!(plan.group);
    let mut sums = Array::<f32>::new(comptime!(head_dim.div_ceil(BLOCK) * 4));
    let mut end = query + BLOCK;
    if end > len {
        end = len;
    }
    let first = first_tile(query, &numbers, plan);
    let steps = (end - first).div_ceil(BLOCK);
    for step in 0..steps {
        let key = first + step * BLOCK;
        let pair = Pair { start, query, key, len, head };
        gradients(qkv, d_out, lse, delta, &mut a, &mut b, &mut p, &pair, &numbers, plan);
        let k_rows =
            Rows { at: (start + key) * width + key_head * head_dim, stride: width, count: len - key };
        weigh(&a, qkv, &k_rows, &mut b, &mut sums, block, head_dim, false);
    }
    let rows = Rows { at: (start + query) * width + head * head_dim, stride: width, count: len - query };
    let mut factors = Array::<f32>::new(2usize);
    factors[0] = numbers.scale;
    factors[1] = numbers.scale;
    store(&sums, d, &rows, &factors, head_dim);
}

#[cube(launch_unchecked)]
fn dkv_kernel(
    qkv: &[f32],
    d_out: &[f32],
    lse: &[f32],
    delta: &[f32],
    tiles: &[u32],
    d: &mut [f32],
    numbers: Numbers,
    #[comptime] plan: Plan,
) {
    let head_dim = comptime!(plan.head_dim);
    let mut a = Shared::<[f32]>::new_slice(comptime!(BLOCK * STRIDE));
    let mut b = Shared::<[f32]>::new_slice(comptime!(BLOCK * STRIDE));
    let mut p = Shared::<[f32]>::new_slice(comptime!(BLOCK * STRIDE));
    let kv_head = CUBE_POS_Y as usize;
    let tile = CUBE_POS_X as usize * 3;
    let (start, key, len) = (tiles[tile] as usize, tiles[tile + 1] as usize, tiles[tile + 2] as usize);
    let (width, block) = (numbers.width as usize, numbers.block as usize);
    let heads = numbers.num_heads as usize;
    let mut dk = Array::<f32>::new(comptime!(head_dim.div_ceil(BLOCK) * 4));
    let mut dv = Array::<f32>::new(comptime!(head_dim.div_ceil(BLOCK) * 4));
    // The queries that see a key of this tile: from the diagonal on, as far as the window reaches.
    let mut end = len;
    if comptime!(plan.windowed) {
        let reach = key + BLOCK - 1 + numbers.window as usize;
        if reach < end {
            end = reach;
        }
    }
    let steps = (end - key).div_ceil(BLOCK);
    for member in 0..comptime!(plan.group) {
        let head = kv_head * comptime!(plan.group) + member;
        for step in 0..steps {
            let query = key + step * BLOCK;
            let pair = Pair { start, query, key, len, head };
            gradients(qkv, d_out, lse, delta, &mut a, &mut b, &mut p, &pair, &numbers, plan);
            let q_width = heads * head_dim;
            let first = start + query;
            let o_rows = Rows { at: first * q_width + head * head_dim, stride: q_width, count: len - query };
            let q_rows = Rows { at: first * width + head * head_dim, stride: width, count: len - query };
            weigh(&p, d_out, &o_rows, &mut b, &mut dv, block, head_dim, true);
            weigh(&a, qkv, &q_rows, &mut b, &mut dk, block, head_dim, true);
        }
    }
    let key_head = heads + kv_head;
    let value_head = key_head + numbers.num_kv_heads as usize;
    let k_rows = Rows { at: (start + key) * width + key_head * head_dim, stride: width, count: len - key };
    let v_rows = Rows { at: (start + key) * width + value_head * head_dim, stride: width, count: len - key };
    let mut factors = Array::<f32>::new(2usize);
    factors[0] = numbers.scale;
    factors[1] = numbers.scale;
    store(&dk, d, &k_rows, &factors, head_dim);
    factors[0] = 1.0f32;
    factors[1] = 1.0f32;
    store(&dv, d, &v_rows, &factors, head_dim);
}
