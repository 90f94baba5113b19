//! One new token against a key and value cache: the forward-only path of `generate`.

use rayon::prelude::*;

use super::{AttentionConfig, QkvLayout};
use crate::isa::{self, Tier, fma, tiered};
use crate::vector::{dot, exp, tanh};

/// Products of queries and keys from which on heads are shared out to threads.
const PARALLEL_PRODUCTS: usize = 1 << 17;

/// Computes the output of the newest token, whose key and value are the last rows of the caches.
///
/// A cache row is the key (or value) part of a `qkv` row as it is, so that appending a token is
/// `extend_from_slice`. Scores of one head at a time; no tile.
///
/// # Shapes
/// - `q`: `[num_heads * head_dim]`, rotated
/// - `k_cache`, `v_cache`: `[tokens, num_kv_heads * head_dim]`, at least one token
/// - `out`: `[num_heads * head_dim]`, overwritten
///
/// # Panics
/// If the shapes disagree.
pub fn attention_decode(
    q: &[f32],
    k_cache: &[f32],
    v_cache: &[f32],
    layout: QkvLayout,
    cfg: AttentionConfig,
    out: &mut [f32],
) {
    let kv_width = layout.num_kv_heads * layout.head_dim;
    layout.assert_fits("attention_decode", q.len() + 2 * kv_width);
    cfg.assert_usable();
    assert_eq!(out.len(), q.len(), "`attention_decode`: output against query");
    assert_eq!(k_cache.len(), v_cache.len(), "`attention_decode`: keys against values");
    assert!(
        !k_cache.is_empty() && k_cache.len().is_multiple_of(kv_width),
        "`attention_decode`: {} cached elements in rows of {kv_width}",
        k_cache.len()
    );
    on_tier(isa::tier(), q, k_cache, v_cache, layout, cfg, out);
}

/// As [`attention_decode`] on a given tier, without checks.
pub(super) fn on_tier(
    tier: Tier,
    q: &[f32],
    k_cache: &[f32],
    v_cache: &[f32],
    layout: QkvLayout,
    cfg: AttentionConfig,
    out: &mut [f32],
) {
    let kv_width = layout.num_kv_heads * layout.head_dim;
    let first = cfg.first_key(k_cache.len() / kv_width - 1) * kv_width;
    let (keys, values) = (&k_cache[first..], &v_cache[first..]);
    let one = |(head, (out, q)): (usize, (&mut [f32], &[f32]))| {
        let start = head / layout.group() * layout.head_dim;
        one_head(tier, q, &keys[start..], &values[start..], kv_width, cfg, out);
    };
    if keys.len() / kv_width * q.len() < PARALLEL_PRODUCTS {
        let heads = out.chunks_exact_mut(layout.head_dim).zip(q.chunks_exact(layout.head_dim));
        heads.enumerate().for_each(one);
    } else {
        let heads = out.par_chunks_exact_mut(layout.head_dim).zip(q.par_chunks_exact(layout.head_dim));
        heads.enumerate().for_each(one);
    }
}

tiered! {
    /// One query head; rows of `keys` and `values` start every `stride` elements.
    fn one_head(
        q: &[f32], keys: &[f32], values: &[f32], stride: usize, cfg: AttentionConfig, out: &mut [f32],
    ) = one_head_body;
}

#[inline(always)]
fn one_head_body<const FMA: bool, const WIDTH: usize>(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    stride: usize,
    cfg: AttentionConfig,
    out: &mut [f32],
) {
    // Loops, not closures: a closure that is not inlined is compiled without the tier's instructions.
    let mut scores = vec![0.0f32; keys.len().div_ceil(stride)];
    let mut max = f32::NEG_INFINITY;
    for (score, k) in scores.iter_mut().zip(keys.chunks(stride)) {
        *score = dot::<FMA>(q, &k[..q.len()]) * cfg.scale;
        if let Some(cap) = cfg.soft_cap {
            *score = cap * tanh::<FMA>(*score / cap);
        }
        max = max.max(*score);
    }
    for score in &mut scores {
        *score = exp::<FMA>(*score - max);
    }
    let mut sum = 0.0;
    for score in &scores {
        sum += score;
    }
    out.fill(0.0);
    for (p, v) in scores.iter().zip(values.chunks(stride)) {
        for (out, v) in out.iter_mut().zip(v) {
            *out = fma::<FMA>(*p, *v, *out);
        }
    }
    for out in out {
        *out /= sum;
    }
}
