//! `attention`, forward and backward, against its definition.

use std::path::Path;

use seedcorn_kernels::attention::tensor_core::call::{backward, forward};
use seedcorn_kernels::attention::{AttentionConfig, QkvLayout, reference};
use seedcorn_kernels::frozen::Compute;

use crate::interpreter::Interpreter;
use crate::numbers::{BF16, Compared, Dense, SUM, random};

/// One call of the op.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) layout: QkvLayout,
    pub(crate) segments: &'static [u32],
    pub(crate) window: Option<usize>,
    pub(crate) soft_cap: Option<f32>,
    /// Whether inputs are what bf16 holds; else they are rounded by the kernels.
    pub(crate) exact: bool,
}

/// Two samples, the second of more than one tile.
pub(crate) const PLAIN: Case = Case {
    layout: QkvLayout { num_heads: 2, num_kv_heads: 1, head_dim: 64 },
    segments: &[0, 20, 110],
    window: None,
    soft_cap: None,
    exact: true,
};

/// What is run.
pub(crate) fn cases() -> Vec<(&'static str, Case)> {
    let heads = |num_heads, num_kv_heads, head_dim| QkvLayout { num_heads, num_kv_heads, head_dim };
    let all = Case { window: Some(33), soft_cap: Some(2.0), ..PLAIN };
    vec![
        ("plain", PLAIN),
        ("window_and_cap", all),
        ("window_of_one", Case { window: Some(1), ..PLAIN }),
        ("window_beyond_all", Case { window: Some(usize::MAX), ..PLAIN }),
        ("heads_of_their_own", Case { layout: heads(2, 2, 32), ..all }),
        ("wide_heads", Case { layout: heads(1, 1, 128), ..PLAIN }),
        ("widest_heads", Case { layout: heads(1, 1, 256), segments: &[0, 37], ..all }),
        ("heads_of_80", Case { layout: heads(1, 1, 80), segments: &[0, 70], ..PLAIN }),
        ("odd_heads", Case { layout: heads(3, 1, 30), ..all }),
        ("inputs_rounded", Case { exact: false, ..PLAIN }),
        ("empty_sample_and_one_row", Case { segments: &[0, 0, 1, 66], ..all }),
    ]
}

impl Case {
    fn cfg(&self) -> AttentionConfig {
        let scale = 1.0 / (self.layout.head_dim as f32).sqrt();
        AttentionConfig { scale, window: self.window, soft_cap: self.soft_cap, compute: Compute::Bf16 }
    }

    /// Scores of a segment that are seen.
    fn seen(&self, len: usize) -> usize {
        (1..=len).map(|keys| keys.min(self.window.unwrap_or(keys))).sum()
    }

    fn tokens(&self) -> usize {
        self.segments.last().map_or(0, |&end| end as usize)
    }

    /// Runs the op; what is compared are the output and `dqkv`.
    pub(crate) fn run(&self, device: &mut Interpreter) -> Result<Vec<Compared>, String> {
        let Self { layout, segments, .. } = *self;
        // Scores of some size, so that the softmax is not flat.
        let qkv: Vec<f32> =
            random(1, self.tokens() * layout.width(), self.exact).iter().map(|value| value * 2.0).collect();
        let d_out = random(2, self.tokens() * layout.q_width(), self.exact);
        let fault = |fault: seedcorn_ptx::Fault| fault.to_string();
        let (on_device, d_on_device) = (device.upload_floats(&qkv), device.upload_floats(&d_out));
        let [out, lse] = forward(device, &on_device, layout, segments, self.cfg()).map_err(fault)?;
        let inputs = [&on_device, &out, &lse, &d_on_device];
        let d = backward(device, inputs, layout, segments, self.cfg()).map_err(fault)?;
        let (qkv, d_out) = (widened(&qkv), widened(&d_out));
        let bounds = self.bounds(&qkv, &d_out);
        let shape = |width| [self.tokens(), width];
        let expected = reference::attention(&qkv, layout, segments, self.cfg());
        let gradient = reference::attention_backward(&qkv, &d_out, layout, segments, self.cfg());
        let mut compared = vec![
            Compared::new("out", Dense::from(expected, shape(layout.q_width())), &bounds[0]),
            Compared::new("dqkv", Dense::from(gradient, shape(layout.width())), &bounds[1]),
        ];
        compared[0].got = device.floats(out)?;
        compared[1].got = device.floats(d)?;
        Ok(compared)
    }

    /// How far the output and `dqkv` may be from the definition.
    ///
    /// Probabilities and the gradients of scores are rounded to bf16 before they go into a product. Inputs are as well
    /// where they are not exact, which moves a score by twice that of the magnitudes it is summed from, and the
    /// logarithm of a probability by twice as much. What the output's error does to `delta` is added.
    fn bounds(&self, qkv: &[f64], d_out: &[f64]) -> [Dense; 2] {
        let Self { layout, segments, .. } = *self;
        let (width, q_width) = (layout.width(), layout.q_width());
        let (scale, input) = (f64::from(self.cfg().scale), if self.exact { 0.0 } else { BF16 });
        let mut out_bound = vec![0.0; self.tokens() * q_width];
        let mut bound = vec![0.0; qkv.len()];
        let magnitude = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a * b).abs()).sum::<f64>();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for ends in segments.windows(2) {
            let (start, end) = (ends[0] as usize, ends[1] as usize);
            for (i, head) in (start..end).flat_map(|i| (0..layout.num_heads).map(move |head| (i, head))) {
                let kv_head = head / layout.group();
                let hidden = self.window.map_or(0, |window| (i - start + 1).saturating_sub(window));
                let keys = start + hidden..i + 1;
                let q = &qkv[i * width..][layout.q(head)];
                let d_o = &d_out[i * q_width..][layout.q(head)];
                let k = |j: usize| &qkv[j * width..][layout.k(kv_head)];
                let v = |j: usize| &qkv[j * width..][layout.v(kv_head)];
                let capped =
                    |s: f64| self.soft_cap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh());
                let scores: Vec<f64> = keys.clone().map(|j| capped(scale * dot(q, k(j)))).collect();
                let total: f64 = scores.iter().map(|score| score.exp()).sum();
                let moved = keys.clone().map(|j| scale * magnitude(q, k(j)) * (2.0 * input + SUM));
                let off = (2.0 * moved.fold(0.0, f64::max)).exp_m1() + SUM;
                let p: Vec<f64> = scores.iter().map(|score| score.exp() / total).collect();
                let d_p: Vec<f64> = keys.clone().map(|j| dot(d_o, v(j))).collect();
                let mean = dot(&d_p, &p);
                let o_bound = &mut out_bound[i * q_width..][layout.q(head)];
                for (p, j) in p.iter().zip(keys.clone()) {
                    let error = p * (BF16 + off + input);
                    o_bound.iter_mut().zip(v(j)).for_each(|(bound, v)| *bound += error * v.abs());
                }
                let mean_error = magnitude(d_o, o_bound)
                    + SUM * p.iter().zip(keys.clone()).map(|(p, j)| p * magnitude(d_o, v(j))).sum::<f64>();
                for (n, j) in keys.clone().enumerate() {
                    let slope = self.soft_cap.map_or(1.0, |cap| 1.0 - (scores[n] / f64::from(cap)).powi(2));
                    let d_s = (p[n] * (d_p[n] - mean) * slope).abs();
                    let d_p_error = magnitude(d_o, v(j)) * (2.0 * input + SUM);
                    let steep = p[n] * (d_p[n] - mean).abs() * off;
                    let error = d_s * (BF16 + off + input) + p[n] * (d_p_error + mean_error) + steep;
                    for c in 0..layout.head_dim {
                        bound[i * width + layout.q(head).start + c] += scale * error * k(j)[c].abs();
                        bound[j * width + layout.k(kv_head).start + c] += scale * error * q[c].abs();
                        bound[j * width + layout.v(kv_head).start + c] +=
                            p[n] * (BF16 + off + input) * d_o[c].abs();
                    }
                }
            }
        }
        [Dense::from(out_bound, [self.tokens(), q_width]), Dense::from(bound, [self.tokens(), width])]
    }
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Runs a case and compares it; each kernel must use the matrix unit.
pub(crate) fn check(toolkit: &Path, case: Case) -> Result<(), String> {
    let mut device = Interpreter::new(toolkit, 1);
    case.run(&mut device)?.iter().try_for_each(Compared::check)?;
    // The matrix unit did the work: two products of each score forward and five backward, in 16 x 8 x 16.
    let scores: usize =
        case.segments.windows(2).map(|ends| (ends[1] - ends[0]) as usize).map(|len| case.seen(len)).sum();
    let least = 7 * scores * case.layout.num_heads * case.layout.head_dim / 2048;
    let units = device.executed.get("mma").copied().unwrap_or(0);
    if units < least as u64 {
        return Err(format!("{units} matrix instructions, expected at least {least}"));
    }
    Ok(())
}
