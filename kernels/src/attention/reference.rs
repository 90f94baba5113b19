//! The definition, in f64: all scores of a row, one softmax, one sum. Gradients by the textbook formulas.

use super::{AttentionConfig, QkvLayout};

/// Computes the output `[t, num_heads * head_dim]`.
pub fn attention(qkv: &[f64], layout: QkvLayout, segments: &[u32], cfg: AttentionConfig) -> Vec<f64> {
    let mut out = vec![0.0; qkv.len() / layout.width() * layout.q_width()];
    for_each_row(qkv, layout, segments, cfg, |row| {
        for (j, p) in row.keys.clone().zip(&row.probabilities) {
            let v = &qkv[j * layout.width()..][layout.v(row.kv_head)];
            let o = &mut out[row.i * layout.q_width()..][layout.q(row.head)];
            o.iter_mut().zip(v).for_each(|(o, v)| *o += p * v);
        }
    });
    out
}

/// Computes `dqkv` from the gradient of the output.
pub fn attention_backward(
    qkv: &[f64],
    d_out: &[f64],
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
) -> Vec<f64> {
    let mut d = vec![0.0; qkv.len()];
    let width = layout.width();
    for_each_row(qkv, layout, segments, cfg, |row| {
        let d_o = &d_out[row.i * layout.q_width()..][layout.q(row.head)];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let d_p: Vec<f64> =
            row.keys.clone().map(|j| dot(d_o, &qkv[j * width..][layout.v(row.kv_head)])).collect();
        let mean = dot(&d_p, &row.probabilities);
        for (n, j) in row.keys.clone().enumerate() {
            let slope = cfg.soft_cap.map_or(1.0, |cap| 1.0 - (row.scores[n] / f64::from(cap)).powi(2));
            let d_s = row.probabilities[n] * (d_p[n] - mean) * slope * f64::from(cfg.scale);
            for c in 0..layout.head_dim {
                let q = row.i * width + layout.q(row.head).start + c;
                let k = j * width + layout.k(row.kv_head).start + c;
                d[q] += d_s * qkv[k];
                d[k] += d_s * qkv[q];
                d[j * width + layout.v(row.kv_head).start + c] += row.probabilities[n] * d_o[c];
            }
        }
    });
    d
}

/// One query of one head with the keys it sees, in positions of the whole pack.
struct Row {
    i: usize,
    head: usize,
    kv_head: usize,
    keys: std::ops::Range<usize>,
    /// Scores after the cap.
    scores: Vec<f64>,
    probabilities: Vec<f64>,
}

fn for_each_row(
    qkv: &[f64],
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
    mut visit: impl FnMut(&Row),
) {
    for segment in segments.windows(2) {
        let start = segment[0] as usize;
        for (i, head) in (start..segment[1] as usize).flat_map(|i| (0..layout.num_heads).map(move |h| (i, h)))
        {
            let kv_head = head / layout.group();
            let keys = start + cfg.first_key(i - start)..i + 1;
            let q = &qkv[i * layout.width()..][layout.q(head)];
            let score = |j: usize| {
                let k = &qkv[j * layout.width()..][layout.k(kv_head)];
                let s = f64::from(cfg.scale) * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
                cfg.soft_cap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
            };
            let scores: Vec<f64> = keys.clone().map(score).collect();
            let max = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            let probabilities = scores.iter().map(|s| (s - max).exp() / sum).collect();
            visit(&Row { i, head, kv_head, keys, scores, probabilities });
        }
    }
}
