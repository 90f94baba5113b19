//! Forward on the CPU: each task is one block of queries of a segment, over all heads.
//!
//! Keys are packed once per segment and key head; a task owns whole rows of the output, so tasks share
//! nothing that they write.

use rayon::prelude::*;

use super::pack::{self, BLOCK};
use super::tile::{TileAt, softmax_step};
use super::{AttentionConfig, QkvLayout};
use crate::isa::Tier;
use crate::matmul::{Left, Mode, small_product};

/// The keys and values of one segment and key head, as tiles read them.
struct Keys {
    /// `[blocks, padded head_dim, BLOCK]`
    transposed: Vec<f32>,
    /// `[tokens, padded head_dim]`
    values: Vec<f32>,
}

/// One block of queries and the rows that it writes.
struct Task<'a> {
    /// Number of the segment.
    segment: usize,
    /// First query, counted in the segment.
    query: usize,
    /// `[queries, width]`
    qkv: &'a [f32],
    /// `[queries, num_heads * head_dim]`
    out: &'a mut [f32],
    /// `[queries, num_heads]`
    lse: &'a mut [f32],
}

/// Computes the output `[t, num_heads * head_dim]` and the log-sum-exp `[t, num_heads]`.
pub(super) fn attention(
    tier: Tier,
    qkv: &[f32],
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
) -> (Vec<f32>, Vec<f32>) {
    #[cfg(target_arch = "x86_64")]
    if super::tiles::chosen(tier, cfg.compute) {
        return super::tiles::forward::attention(qkv, layout, segments, cfg);
    }
    let t = qkv.len() / layout.width();
    let (mut out, mut lse) = (vec![0.0; t * layout.q_width()], vec![0.0; t * layout.num_heads]);
    let keys: Vec<Keys> = (0..(segments.len() - 1) * layout.num_kv_heads)
        .into_par_iter()
        .map(|n| {
            let (segment, head) = (n / layout.num_kv_heads, n % layout.num_kv_heads);
            let rows = pack::segment(qkv, layout.width(), &segments[segment..]);
            Keys {
                transposed: pack::transposed(rows, layout.width(), layout.k(head)),
                values: pack::rows(rows, layout.width(), layout.v(head), 1.0),
            }
        })
        .collect();
    let tasks = split(qkv, &mut out, &mut lse, layout, segments);
    tasks.into_par_iter().for_each(|task| {
        let keys = &keys[task.segment * layout.num_kv_heads..][..layout.num_kv_heads];
        query_block(tier, task, keys, layout, cfg);
    });
    (out, lse)
}

/// Cuts the rows of every segment into blocks.
fn split<'a>(
    mut qkv: &'a [f32],
    mut out: &'a mut [f32],
    mut lse: &'a mut [f32],
    layout: QkvLayout,
    segments: &[u32],
) -> Vec<Task<'a>> {
    let mut tasks = Vec::new();
    for (segment, ends) in segments.windows(2).enumerate() {
        let len = (ends[1] - ends[0]) as usize;
        for query in (0..len).step_by(BLOCK) {
            let rows = BLOCK.min(len - query);
            tasks.push(Task {
                segment,
                query,
                qkv: qkv.split_off(..rows * layout.width()).expect("segments end at the last row"),
                out: out.split_off_mut(..rows * layout.q_width()).expect("segments end at the last row"),
                lse: lse.split_off_mut(..rows * layout.num_heads).expect("segments end at the last row"),
            });
        }
    }
    tasks
}

fn query_block(tier: Tier, task: Task<'_>, keys: &[Keys], layout: QkvLayout, cfg: AttentionConfig) {
    let Task { query, qkv, out, lse, .. } = task;
    let stride = pack::padded(layout.head_dim);
    let queries = lse.len() / layout.num_heads;
    let mut scores = [0.0; BLOCK * BLOCK];
    let mut sums = vec![0.0; queries * stride];
    for head in 0..layout.num_heads {
        let keys = &keys[head / layout.group()];
        let q = pack::rows(qkv, layout.width(), layout.q(head), cfg.scale);
        let (mut max, mut sum) = ([f32::NEG_INFINITY; BLOCK], [0.0; BLOCK]);
        sums.fill(0.0);
        let first = cfg.first_key(query) / BLOCK * BLOCK;
        for key in (first..query + queries).step_by(BLOCK) {
            let at = TileAt { query, queries, key, cfg };
            let k = &keys.transposed[key * stride..][..stride * BLOCK];
            let v = &keys.values[key * stride..];
            let count = BLOCK.min(v.len() / stride);
            let sizes = [queries, BLOCK, stride];
            small_product(tier, Left::Rows(&q, stride), k, &mut scores, sizes, Mode::Write);
            softmax_step(tier, at, &mut scores, &mut max, &mut sum, &mut sums, stride);
            let sizes = [queries, stride, count];
            small_product(tier, Left::Rows(&scores, BLOCK), v, &mut sums, sizes, Mode::Add);
        }
        for row in 0..queries {
            let out = &mut out[row * layout.q_width()..][layout.q(head)];
            out.iter_mut().zip(&sums[row * stride..]).for_each(|(out, s)| *out = s / sum[row]);
            lse[row * layout.num_heads + head] = max[row] + sum[row].ln();
        }
    }
}
