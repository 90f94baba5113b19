//! Every tier against the reference, forward and gradient; packs, windows, caps, decoding.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use super::{AttentionConfig, QkvLayout, attention, backward, cpu, decode, reference};
use crate::frozen::Compute;
use crate::isa::Tier;
use crate::testing::{assert_close, assert_thread_independent, finite_difference, narrow, random, wide};

/// Largest error relative to the largest value seen on an AVX-512 Xeon over all tiers and cases below: 4.9e-7
/// forward (rounding of scores before `exp`), 2.5e-6 gradient (`dv` of the first key, a chain of 2100
/// additions; 8.0e-7 elsewhere); times 3.
const TOLERANCE: f64 = 7.5e-6;

/// The same on tiles in bf16, measured likewise on a Sapphire Rapids Xeon: 5.5e-3 forward, 4.5e-3 gradient;
/// times 3. Each operand and probability is rounded by up to 2e-3 of its size.
const BF16_TOLERANCE: f64 = 1.7e-2;

/// Every tier in f32, and tiles in bf16 where there are some.
fn variants() -> Vec<(Tier, Compute)> {
    let mut variants: Vec<_> = Tier::available().into_iter().map(|tier| (tier, Compute::F32)).collect();
    if Tier::Amx.is_available() {
        variants.push((Tier::Amx, Compute::Bf16));
    }
    variants
}

fn tolerance((_, compute): (Tier, Compute)) -> f64 {
    if compute == Compute::Bf16 { BF16_TOLERANCE } else { TOLERANCE }
}

struct Case {
    layout: QkvLayout,
    segments: Vec<u32>,
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
        let t = *segments.last().unwrap() as usize;
        let cfg = AttentionConfig {
            scale: (head_dim as f32).powf(-0.5),
            window,
            soft_cap: cap,
            compute: Compute::F32,
        };
        let (qkv, d_out) = (random(1, t * layout.width(), 2.0), random(2, t * layout.q_width(), 1.0));
        Self { layout, segments, cfg, qkv, d_out }
    }

    fn forward(&self, (tier, compute): (Tier, Compute)) -> (Vec<f32>, Vec<f32>) {
        let cfg = AttentionConfig { compute, ..self.cfg };
        cpu::attention(tier, &self.qkv, self.layout, &self.segments, cfg)
    }

    fn gradient(&self, (tier, compute): (Tier, Compute)) -> Vec<f32> {
        let (out, lse) = self.forward((tier, compute));
        let saved = backward::Saved { qkv: &self.qkv, out: &out, lse: &lse, d_out: &self.d_out };
        let cfg = AttentionConfig { compute, ..self.cfg };
        backward::attention(tier, saved, self.layout, &self.segments, cfg)
    }

    fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let (qkv, d_out) = (wide(&self.qkv), wide(&self.d_out));
        let out = reference::attention(&qkv, self.layout, &self.segments, self.cfg);
        let d = reference::attention_backward(&qkv, &d_out, self.layout, &self.segments, self.cfg);
        (out, d)
    }

    fn name(&self, (tier, compute): (Tier, Compute)) -> String {
        format!("{} {compute:?} {:?} {:?} {:?}", tier.name(), self.layout, self.segments, self.cfg)
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
        Case::new((4, 2, 16), &[200, 7], Some(5), None),
        Case::new((2, 1, 16), &[300], Some(64), None),
        Case::new((2, 1, 16), &[200], Some(129), Some(50.0)),
        Case::new((2, 1, 16), &[70], Some(1), None),
        Case::new((2, 1, 16), &[70], Some(1000), None),
        Case::new((6, 2, 64), &[1, 31, 33, 65, 130], Some(40), None),
        Case::new((3, 1, 33), &[700], None, None),
        Case::new((2, 2, 40), &[1100, 20], Some(300), Some(30.0)),
    ]
}

#[test]
fn every_tier_equals_the_reference() {
    for case in cases() {
        let (out, d) = case.reference();
        for variant in variants() {
            let what = case.name(variant);
            let error = assert_close(&what, &case.forward(variant).0, &out, tolerance(variant));
            let grad_error = assert_close(&what, &case.gradient(variant), &d, tolerance(variant));
            println!("{what}: {error:.1e}, gradient {grad_error:.1e}");
        }
    }
}

#[test]
fn reference_gradient_equals_differences() {
    for (window, cap) in [(None, None), (Some(3), Some(1.5))] {
        let case = Case::new((4, 2, 3), &[4, 1, 6], window, cap);
        let forward = |qkv: &[f64]| reference::attention(qkv, case.layout, &case.segments, case.cfg);
        let expected = finite_difference(&wide(&case.qkv), &wide(&case.d_out), forward);
        // Central differences in f64 with a step of 1e-5 leave 1e-9; f32 rounding of the comparison 1e-7.
        assert_close("dqkv", &narrow(&case.reference().1), &expected, 3e-7);
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    for variant in variants() {
        let mut case = Case::new((2, 1, 16), &[130], None, None);
        for x in &mut case.qkv {
            *x *= 1e3;
        }
        // Scores of millions round by tenths in f32: `exp` of them cannot be compared, only be finite.
        assert!(case.forward(variant).0.iter().chain(&case.gradient(variant)).all(|x| x.is_finite()));
    }
}

#[test]
fn a_pack_equals_its_samples_to_the_bit() {
    let lengths = [5, 64, 1, 123, 70, 600];
    for (variant, window) in variants().into_iter().flat_map(|v| [(v, None), (v, Some(20))]) {
        let pack = Case::new((4, 2, 20), &lengths, window, None);
        let (out, lse) = pack.forward(variant);
        let d = pack.gradient(variant);
        for (ends, len) in pack.segments.windows(2).zip(lengths) {
            let rows =
                |x: &[f32], width: usize| x[ends[0] as usize * width..ends[1] as usize * width].to_vec();
            let mut alone = Case::new((4, 2, 20), &[len], window, None);
            alone.qkv = rows(&pack.qkv, pack.layout.width());
            alone.d_out = rows(&pack.d_out, pack.layout.q_width());
            let expected = (rows(&out, pack.layout.q_width()), rows(&lse, pack.layout.num_heads));
            assert_eq!(alone.forward(variant), expected);
            assert_eq!(alone.gradient(variant), rows(&d, pack.layout.width()));
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let case = Case::new((4, 2, 20), &[200, 3, 1100], None, None);
    for variant in variants() {
        assert_thread_independent("out", || case.forward(variant).0);
        assert_thread_independent("dqkv", || case.gradient(variant));
    }
}

#[test]
fn a_nan_reaches_only_later_queries_of_its_segment() {
    let mut case = Case::new((1, 1, 4), &[3, 3], None, None);
    case.qkv[case.layout.width() + case.layout.k(0).start] = f32::NAN;
    for variant in variants() {
        let out = case.forward(variant).0;
        let finite: Vec<bool> = out.chunks(4).map(|row| row.iter().all(|x| x.is_finite())).collect();
        assert_eq!(finite, [true, false, false, true, true, true], "{}", case.name(variant));
    }
}

#[test]
fn decoding_equals_the_last_row() {
    for mut case in cases().into_iter().filter(|case| case.segments.len() > 1) {
        // One sample of all tokens, so that the last row sees as much as the window lets it.
        case.segments = vec![0, *case.segments.last().unwrap()];
        let out = case.reference().0;
        let width = case.layout.width();
        let part = |range: std::ops::Range<usize>| -> Vec<f32> {
            case.qkv.chunks(width).flat_map(|row| row[range.clone()].to_vec()).collect()
        };
        let q_width = case.layout.q_width();
        let k = part(q_width..q_width + (width - q_width) / 2);
        let v = part(q_width + (width - q_width) / 2..width);
        let q = &case.qkv[case.qkv.len() - width..][..q_width];
        for tier in Tier::available() {
            let mut got = vec![f32::NAN; q_width];
            decode::on_tier(tier, q, &k, &v, case.layout, case.cfg, &mut got);
            assert_close(&case.name((tier, Compute::F32)), &got, &out[out.len() - q_width..], TOLERANCE);
        }
    }
}

#[test]
fn op_on_tensors_gives_value_and_gradient() {
    let case = Case::new((4, 2, 20), &[70, 5], Some(30), None);
    let device = Device::flex().autodiff();
    let tensor = |x: &[f32], width: usize| {
        Tensor::<2>::from_data(TensorData::new(x.to_vec(), [x.len() / width, width]), &device)
    };
    let qkv = tensor(&case.qkv, case.layout.width()).require_grad();
    let out = attention(qkv.clone(), case.layout, Arc::from(case.segments.clone()), case.cfg);
    let grads = (out.clone() * tensor(&case.d_out, case.layout.q_width())).sum().backward();
    let (expected_out, expected_d) = case.reference();
    assert_close("out", &out.into_data().try_to_vec::<f32>().unwrap(), &expected_out, TOLERANCE);
    let d = qkv.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap();
    assert_close("dqkv", &d, &expected_d, TOLERANCE);
}
