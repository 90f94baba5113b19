//! The output and the log-sum-exp.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::tile::{Rows, capped, dots, first_tile, is_hidden, place, sees, store, weigh};
use super::{AttentionConfig, BLOCK, HIDDEN, Numbers, Plan, QkvLayout, SIDE, STRIDE};
use crate::gpu::{self, arg};

#[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
pub(super) fn launch(
    qkv: &CubeTensor,
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
) -> (CubeTensor, CubeTensor) {
    let [tokens, _] = gpu::dims(qkv);
    let out = gpu::empty(qkv, [tokens, layout.q_width()]);
    let lse = gpu::empty(qkv, [tokens, layout.num_heads]);
    let (tiles, count) = super::tiles(&qkv.client, segments);
    if count > 0 {
        // SAFETY: tiles lie in segments, which end at the last row.
        unsafe {
            forward_kernel::launch_unchecked(
                &qkv.client,
                super::cubes(count, layout.num_heads),
                super::units(),
                arg(qkv),
                tiles.arg(),
                arg(&out),
                arg(&lse),
                super::numbers(layout, cfg),
                super::plan(layout, cfg),
            );
        }
    }
    (out, lse)
}

#[cube(launch_unchecked)]
fn forward_kernel(
    qkv: &[f32],
    tiles: &[u32],
    out: &mut [f32],
    lse: &mut [f32],
    numbers: Numbers,
    #[comptime] plan: Plan,
) {
    let head_dim = comptime!(plan.head_dim);
    let mut a = Shared::<[f32]>::new_slice(comptime!(BLOCK * STRIDE));
    let mut b = Shared::<[f32]>::new_slice(comptime!(BLOCK * STRIDE));
    let mut p = Shared::<[f32]>::new_slice(comptime!(BLOCK * STRIDE));
    let mut largest = Shared::<[f32]>::new_slice(BLOCK);
    let mut total = Shared::<[f32]>::new_slice(BLOCK);
    let mut shrink = Shared::<[f32]>::new_slice(BLOCK);
    let head = CUBE_POS_Y as usize;
    let tile = CUBE_POS_X as usize * 3;
    let (start, query, len) = (tiles[tile] as usize, tiles[tile + 1] as usize, tiles[tile + 2] as usize);
    let (width, block) = (numbers.width as usize, numbers.block as usize);
    let q_rows = Rows { at: (start + query) * width + head * head_dim, stride: width, count: len - query };
    let key_head = numbers.num_heads as usize + head / comptime!(plan.group);
    let value_head = key_head + numbers.num_kv_heads as usize;
    let (row, column) = place();
    let unit = UNIT_POS as usize;
    if unit < BLOCK {
        largest[unit] = HIDDEN;
        total[unit] = 0.0f32;
    }
    let mut sums = Array::<f32>::new(comptime!(head_dim.div_ceil(BLOCK) * 4));
    let mut end = query + BLOCK;
    if end > len {
        end = len;
    }
    let first = first_tile(query, &numbers, plan);
    let steps = (end - first).div_ceil(BLOCK);
    for step in 0..steps {
        let key = first + step * BLOCK;
        let k_rows =
            Rows { at: (start + key) * width + key_head * head_dim, stride: width, count: len - key };
        let v_rows =
            Rows { at: (start + key) * width + value_head * head_dim, stride: width, count: len - key };
        let mut scores = Array::<f32>::new(4usize);
        dots(qkv, &q_rows, qkv, &k_rows, &mut a, &mut b, &mut scores, block, head_dim);
        #[unroll]
        for part in 0..4usize {
            let y = row + comptime!(part / 2 * SIDE);
            let x = column + comptime!(part % 2 * SIDE);
            let score = capped(scores[part] * numbers.scale, &numbers, plan);
            let seen = sees(query + y, key + x, len, &numbers, plan);
            p[y * STRIDE + x] = select(seen, score, HIDDEN);
        }
        sync_cube();
        if unit < BLOCK {
            softmax_row(&mut p, &mut largest, &mut total, &mut shrink, unit, block);
        }
        sync_cube();
        #[unroll]
        for i in 0..comptime!(head_dim.div_ceil(BLOCK) * 4) {
            let factor = shrink[row + comptime!(i % 4 / 2 * SIDE)];
            sums[i] *= factor;
        }
        weigh(&p, qkv, &v_rows, &mut b, &mut sums, block, head_dim, false);
    }
    let q_width = numbers.num_heads as usize * head_dim;
    let o_rows =
        Rows { at: (start + query) * q_width + head * head_dim, stride: q_width, count: len - query };
    let mut factors = Array::<f32>::new(2usize);
    factors[0] = 1.0f32 / total[row];
    factors[1] = 1.0f32 / total[row + SIDE];
    store(&sums, out, &o_rows, &factors, head_dim);
    if unit < BLOCK && query + unit < len {
        lse[(start + query + unit) * numbers.num_heads as usize + head] = largest[unit] + total[unit].ln();
    }
}

/// One step of the online softmax for a row of scores: they become `exp(s - max)`.
#[cube]
fn softmax_row(
    p: &mut Shared<[f32]>,
    largest: &mut Shared<[f32]>,
    total: &mut Shared<[f32]>,
    shrink: &mut Shared<[f32]>,
    row: usize,
    block: usize,
) {
    let old = largest[row];
    let mut new = old;
    for column in 0..block {
        let score = p[row * STRIDE + column];
        if score > new {
            new = score;
        }
    }
    let mut sum = 0.0f32;
    for column in 0..block {
        let score = p[row * STRIDE + column];
        let e = select(is_hidden(score), 0.0f32, (score - new).exp());
        p[row * STRIDE + column] = e;
        sum += e;
    }
    let factor = (old - new).exp();
    shrink[row] = factor;
    total[row] = total[row] * factor + sum;
    largest[row] = new;
}
