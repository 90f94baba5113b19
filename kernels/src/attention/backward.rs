//! The gradient, by hand, tile by tile.
//!
//! Per query `i` and key `j`, with `s = scale q_i . k_j`, capped score `c` and `p = exp(c - lse_i)`:
//!
//! ```text
//! o_i = sum_j p_ij v_j          dv_j = sum_i p_ij do_i
//!                               dp_ij = do_i . v_j
//! p = softmax(c)                dc_ij = p_ij (dp_ij - sum_n p_in dp_in)
//! sum_n p_in dp_in = do_i . sum_n p_in v_n = do_i . o_i = delta_i     (one dot product, no row of p)
//! c = cap tanh(s / cap)         ds_ij = dc_ij (1 - (c_ij / cap)^2)
//! s = scale q_i . k_j           dq_i = scale sum_j ds_ij k_j,   dk_j = sum_i ds_ij (scale q_i)
//! ```
//!
//! A task is one segment and key head: it walks key blocks, inside them its query heads in order, inside
//! them query blocks. So `dk` and `dv` add up over the group in one fixed order.

use rayon::prelude::*;

use super::pack::{self, BLOCK};
use super::tile::{TileAt, gradient_step};
use super::{AttentionConfig, QkvLayout};
use crate::isa::Tier;
use crate::matmul::{Left, Mode, small_product};

/// What the forward pass left, and the gradient that comes in.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    /// `[t, width]`
    pub(super) qkv: &'a [f32],
    /// `[t, num_heads * head_dim]`
    pub(super) out: &'a [f32],
    /// `[t, num_heads]`
    pub(super) lse: &'a [f32],
    /// `[t, num_heads * head_dim]`
    pub(super) d_out: &'a [f32],
}

/// One query head of a segment: packed inputs and its growing gradient.
struct Query {
    /// Scaled queries, `[tokens, padded head_dim]`
    q: Vec<f32>,
    d_out: Vec<f32>,
    lse: Vec<f32>,
    delta: Vec<f32>,
    dq: Vec<f32>,
}

/// Gradients of one segment and key head, `[tokens, padded head_dim]` each.
struct Gradients {
    dq: Vec<Vec<f32>>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

/// Computes `dqkv: [t, width]`.
pub(super) fn attention(
    tier: Tier,
    saved: Saved<'_>,
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if super::tiles::chosen(tier, cfg.compute) {
        return super::tiles::backward::attention(saved, layout, segments, cfg);
    }
    let gradients: Vec<Gradients> = (0..(segments.len() - 1) * layout.num_kv_heads)
        .into_par_iter()
        .map(|n| {
            let ends = &segments[n / layout.num_kv_heads..];
            kv_head(tier, saved, layout, ends, n % layout.num_kv_heads, cfg)
        })
        .collect();
    let mut dqkv = vec![0.0; saved.qkv.len()];
    let mut rest = dqkv.as_mut_slice();
    for (ends, gradients) in segments.windows(2).zip(gradients.chunks_exact(layout.num_kv_heads)) {
        let len = (ends[1] - ends[0]) as usize * layout.width();
        let rows = rest.split_off_mut(..len).expect("segments end at the last row");
        rows.par_chunks_mut(layout.width())
            .with_min_len(BLOCK)
            .enumerate()
            .for_each(|(i, row)| scatter(row, i, gradients, layout, cfg.scale));
    }
    dqkv
}

/// Writes row `i` of a segment from the gradients of its key heads.
fn scatter(row: &mut [f32], i: usize, gradients: &[Gradients], layout: QkvLayout, scale: f32) {
    let stride = pack::padded(layout.head_dim);
    let from = i * stride..i * stride + layout.head_dim;
    for (kv_head, gradients) in gradients.iter().enumerate() {
        row[layout.k(kv_head)].copy_from_slice(&gradients.dk[from.clone()]);
        row[layout.v(kv_head)].copy_from_slice(&gradients.dv[from.clone()]);
        for (n, dq) in gradients.dq.iter().enumerate() {
            let out = &mut row[layout.q(kv_head * layout.group() + n)];
            out.iter_mut().zip(&dq[from.clone()]).for_each(|(out, dq)| *out = dq * scale);
        }
    }
}

fn kv_head(
    tier: Tier,
    saved: Saved<'_>,
    layout: QkvLayout,
    ends: &[u32],
    head: usize,
    cfg: AttentionConfig,
) -> Gradients {
    let stride = pack::padded(layout.head_dim);
    let rows = pack::segment(saved.qkv, layout.width(), ends);
    let keys_t = pack::transposed(rows, layout.width(), layout.k(head));
    let values_t = pack::transposed(rows, layout.width(), layout.v(head));
    let keys = pack::rows(rows, layout.width(), layout.k(head), 1.0);
    let heads = head * layout.group()..(head + 1) * layout.group();
    let mut queries: Vec<Query> = heads.map(|head| query_head(saved, layout, ends, head, cfg)).collect();
    let (mut dk, mut dv) = (vec![0.0; keys.len()], vec![0.0; keys.len()]);
    let blocks = keys.chunks(BLOCK * stride).zip(keys_t.chunks_exact(BLOCK * stride));
    let blocks = blocks.zip(values_t.chunks_exact(BLOCK * stride));
    let sums = dk.chunks_mut(BLOCK * stride).zip(dv.chunks_mut(BLOCK * stride));
    for (n, (((keys, keys_t), values_t), (dk, dv))) in blocks.zip(sums).enumerate() {
        let mut block = KeyBlock { key: n * BLOCK, keys, keys_t, values_t, dk, dv };
        for query in &mut queries {
            block.visit(tier, query, stride, cfg);
        }
    }
    Gradients { dq: queries.into_iter().map(|query| query.dq).collect(), dk, dv }
}

fn query_head(saved: Saved<'_>, layout: QkvLayout, ends: &[u32], head: usize, cfg: AttentionConfig) -> Query {
    let q_width = layout.q_width();
    let q =
        pack::rows(pack::segment(saved.qkv, layout.width(), ends), layout.width(), layout.q(head), cfg.scale);
    let d_out = pack::rows(pack::segment(saved.d_out, q_width, ends), q_width, layout.q(head), 1.0);
    let out = pack::rows(pack::segment(saved.out, q_width, ends), q_width, layout.q(head), 1.0);
    let stride = pack::padded(layout.head_dim);
    let dot = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| a * b).sum();
    let delta = d_out.chunks_exact(stride).zip(out.chunks_exact(stride)).map(dot).collect();
    let lse = pack::segment(saved.lse, layout.num_heads, ends);
    let lse = lse.iter().skip(head).step_by(layout.num_heads).copied().collect();
    Query { dq: vec![0.0; q.len()], q, d_out, lse, delta }
}

/// A block of keys, packed three ways, and its growing gradients.
struct KeyBlock<'a> {
    key: usize,
    keys: &'a [f32],
    keys_t: &'a [f32],
    values_t: &'a [f32],
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

impl KeyBlock<'_> {
    /// Adds what the queries of one head contribute, block by block from the diagonal on.
    fn visit(&mut self, tier: Tier, query: &mut Query, stride: usize, cfg: AttentionConfig) {
        let count = self.keys.len() / stride;
        let tokens = query.lse.len();
        let (mut scores, mut d) = ([0.0; BLOCK * BLOCK], [0.0; BLOCK * BLOCK]);
        for start in (self.key..tokens).step_by(BLOCK) {
            if cfg.first_key(start) >= self.key + count {
                break; // The window has passed this block, for this and all later queries.
            }
            let queries = BLOCK.min(tokens - start);
            let at = TileAt { query: start, queries, key: self.key, cfg };
            let rows = start * stride..(start + queries) * stride;
            let (q, d_out) = (&query.q[rows.clone()], &query.d_out[rows.clone()]);
            let (lse, delta) = (&query.lse[start..][..queries], &query.delta[start..][..queries]);
            let sizes = [queries, BLOCK, stride];
            small_product(tier, Left::Rows(q, stride), self.keys_t, &mut scores, sizes, Mode::Write);
            small_product(tier, Left::Rows(d_out, stride), self.values_t, &mut d, sizes, Mode::Write);
            gradient_step(tier, at, &mut scores, &mut d, lse, delta);
            let sizes = [count, stride, queries];
            small_product(tier, Left::Columns(&scores, BLOCK), d_out, self.dv, sizes, Mode::Add);
            small_product(tier, Left::Columns(&d, BLOCK), q, self.dk, sizes, Mode::Add);
            let sizes = [queries, stride, count];
            small_product(tier, Left::Rows(&d, BLOCK), self.keys, &mut query.dq[rows], sizes, Mode::Add);
        }
    }
}
