//! Attention on a device: packs, grouped heads, windows, caps; the gradient.

use std::sync::Arc;

use burn::tensor::Device;
use seedcorn_kernels::attention::{AttentionConfig, QkvLayout, attention, reference};
use seedcorn_kernels::frozen::Compute;

use crate::harness::{Test, assert_close, random, wide, with_gradient};

pub(crate) const TESTS: &[Test] = &[
    ("attention equals the reference", equals_the_reference),
    ("attention: large scores neither overflow nor vanish", large_scores_stay_finite),
    ("attention: a pack equals its samples to the bit", a_pack_equals_its_samples),
    ("attention: a NaN reaches only later queries of its segment", a_nan_stays_in_its_segment),
];

/// Largest error seen on lavapipe, relative to the largest value: 2.5e-6 (gradient of the first key); times 3.
const TOLERANCE: f64 = 7.5e-6;

struct Case {
    layout: QkvLayout,
    segments: Arc<[u32]>,
    cfg: AttentionConfig,
    qkv: Vec<f32>,
    d_out: Vec<f32>,
}

impl Case {
    fn new(heads: (usize, usize, usize), lengths: &[u32], window: Option<usize>, cap: Option<f32>) -> Self {
        let (num_heads, num_kv_heads, head_dim) = heads;
        let layout = QkvLayout { num_heads, num_kv_heads, head_dim };
        let mut segments = vec![0];
        for len in lengths {
            segments.push(segments[segments.len() - 1] + len);
        }
        let t = segments[segments.len() - 1] as usize;
        let scale = (head_dim as f32).powf(-0.5);
        let cfg = AttentionConfig { scale, window, soft_cap: cap, compute: Compute::F32 };
        let (qkv, d_out) = (random(1, t * layout.width(), 2.0), random(2, t * layout.q_width(), 1.0));
        Self { layout, segments: segments.into(), cfg, qkv, d_out }
    }

    fn run(&self, device: &Device) -> (Vec<f32>, Vec<f32>) {
        let t = self.segments[self.segments.len() - 1] as usize;
        with_gradient(&self.qkv, [t, self.layout.width()], &self.d_out, device, |qkv| {
            attention(qkv, self.layout, self.segments.clone(), self.cfg)
        })
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case::new((1, 1, 5), &[], None, None),
        Case::new((1, 1, 5), &[1], None, None),
        Case::new((2, 1, 8), &[0, 5, 0, 1], None, None),
        Case::new((4, 2, 20), &[123], None, None),
        Case::new((9, 3, 64), &[63, 64, 65, 1, 130], None, None),
        Case::new((2, 2, 80), &[70], None, None),
        Case::new((2, 1, 128), &[33, 100], None, Some(3.0)),
        Case::new((1, 1, 256), &[40], None, None),
        Case::new((4, 2, 16), &[200, 7], Some(5), None),
        Case::new((2, 1, 16), &[300], Some(64), None),
        Case::new((2, 1, 16), &[200], Some(129), Some(50.0)),
        Case::new((2, 1, 16), &[70], Some(1), None),
        Case::new((2, 1, 16), &[70], Some(1000), None),
        Case::new((6, 2, 64), &[1, 31, 33, 65, 130], Some(40), None),
        Case::new((3, 1, 33), &[700], None, None),
    ]
}

fn equals_the_reference(device: &Device) {
    for case in cases() {
        let (qkv, d_out) = (wide(&case.qkv), wide(&case.d_out));
        let out = reference::attention(&qkv, case.layout, &case.segments, case.cfg);
        let d = reference::attention_backward(&qkv, &d_out, case.layout, &case.segments, case.cfg);
        let (got_out, got_d) = case.run(device);
        let what = format!("{:?} {:?} {:?}", case.layout, case.segments, case.cfg);
        let error = assert_close(&what, &got_out, &out, TOLERANCE);
        let grad_error = assert_close(&what, &got_d, &d, TOLERANCE);
        println!("{what}: {error:.1e}, gradient {grad_error:.1e}");
    }
}

fn large_scores_stay_finite(device: &Device) {
    let mut case = Case::new((2, 1, 16), &[130], None, None);
    case.qkv.iter_mut().for_each(|x| *x *= 1e3);
    let (out, d) = case.run(device);
    assert!(out.iter().chain(&d).all(|x| x.is_finite()));
}

fn a_pack_equals_its_samples(device: &Device) {
    let lengths = [5, 64, 1, 123, 70];
    for window in [None, Some(20)] {
        let pack = Case::new((4, 2, 20), &lengths, window, None);
        let (out, d) = pack.run(device);
        for (ends, len) in pack.segments.windows(2).zip(lengths) {
            let rows =
                |x: &[f32], width: usize| x[ends[0] as usize * width..ends[1] as usize * width].to_vec();
            let mut alone = Case::new((4, 2, 20), &[len], window, None);
            alone.qkv = rows(&pack.qkv, pack.layout.width());
            alone.d_out = rows(&pack.d_out, pack.layout.q_width());
            let expected = (rows(&out, pack.layout.q_width()), rows(&d, pack.layout.width()));
            assert!(alone.run(device) == expected, "a sample of {len} tokens, window {window:?}");
        }
    }
}

fn a_nan_stays_in_its_segment(device: &Device) {
    let mut case = Case::new((1, 1, 4), &[3, 3], None, None);
    case.qkv[case.layout.width() + case.layout.k(0).start] = f32::NAN;
    let out = case.run(device).0;
    let finite: Vec<bool> = out.chunks(4).map(|row| row.iter().all(|x| x.is_finite())).collect();
    assert_eq!(finite, [true, false, false, true, true, true]);
}
