//! The definition. Angles are rounded to f32 as in Hugging Face transformers; the rest is f64.

use super::RopeTable;
use crate::attention::QkvLayout;

/// Returns `qkv` with query and key heads rotated.
pub fn rope(qkv: &[f64], layout: QkvLayout, positions: &[u32], table: &RopeTable) -> Vec<f64> {
    let mut out = qkv.to_vec();
    let half = layout.head_dim / 2;
    for (t, &position) in positions.iter().enumerate() {
        for head in 0..layout.num_heads + layout.num_kv_heads {
            let start = t * layout.width() + head * layout.head_dim;
            for i in 0..half {
                let angle = f64::from(position as f32 * table.inv_freq[i]);
                let scaling = f64::from(table.attention_scaling);
                let (sin, cos) = (angle.sin() * scaling, angle.cos() * scaling);
                let (a, b) = (qkv[start + i], qkv[start + half + i]);
                out[start + i] = a * cos - b * sin;
                out[start + half + i] = b * cos + a * sin;
            }
        }
    }
    out
}
