//! Rotation on the CPU: tokens in parallel, cosine and sine once per token for all heads.

use rayon::prelude::*;

use super::RopeTable;
use crate::attention::QkvLayout;
use crate::isa::{Tier, fma, tiered};
use crate::vector::cos_sin;

/// Tokens that one task takes: fixed, so that work does not depend on the number of threads.
const TOKENS_PER_TASK: usize = 16;

/// Rotates query and key heads in place.
pub(super) fn rotate(tier: Tier, qkv: &mut [f32], layout: QkvLayout, positions: &[u32], table: &RopeTable) {
    rotate_signed(tier, qkv, layout, positions, table, 1.0);
}

/// Rotates by `sign` times the angle.
pub(super) fn rotate_signed(
    tier: Tier,
    qkv: &mut [f32],
    layout: QkvLayout,
    positions: &[u32],
    table: &RopeTable,
    sign: f32,
) {
    let tasks = qkv.par_chunks_mut(TOKENS_PER_TASK * layout.width());
    tasks.zip(positions.par_chunks(TOKENS_PER_TASK)).for_each(|(rows, positions)| {
        let half = layout.head_dim / 2;
        let (mut cos, mut sin) = (vec![0.0; half], vec![0.0; half]);
        for (row, &position) in rows.chunks_exact_mut(layout.width()).zip(positions) {
            let scaling = [table.attention_scaling, table.attention_scaling * sign];
            angles(tier, position as f32, &table.inv_freq, scaling, &mut cos, &mut sin);
            let heads = (layout.num_heads + layout.num_kv_heads) * layout.head_dim;
            rotate_row(tier, &mut row[..heads], &cos, &sin);
        }
    });
}

tiered! {
    /// Computes scaled cosine and sine of the angles of one position.
    pub(super) fn angles(
        position: f32, inv_freq: &[f32], scaling: [f32; 2], cos: &mut [f32], sin: &mut [f32],
    ) = angles_body;
}

#[inline(always)]
fn angles_body<const FMA: bool, const WIDTH: usize>(
    position: f32,
    inv_freq: &[f32],
    scaling: [f32; 2],
    cos: &mut [f32],
    sin: &mut [f32],
) {
    for ((inv_freq, cos), sin) in inv_freq.iter().zip(cos).zip(sin) {
        // Rounded to f32 before the sine is taken: that is what the model has seen.
        let [c, s] = cos_sin(position * inv_freq);
        (*cos, *sin) = (c * scaling[0], s * scaling[1]);
    }
}

tiered! { fn rotate_row(heads: &mut [f32], cos: &[f32], sin: &[f32]) = rotate_row_body; }

#[inline(always)]
fn rotate_row_body<const FMA: bool, const WIDTH: usize>(heads: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for head in heads.chunks_exact_mut(2 * half) {
        let (low, high) = head.split_at_mut(half);
        for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let (a, b) = (*low, *high);
            *low = fma::<FMA>(a, *cos, -(b * sin));
            *high = fma::<FMA>(b, *cos, a * sin);
        }
    }
}
