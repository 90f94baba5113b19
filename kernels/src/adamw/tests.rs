//! Against torch's own numbers, against the reference on many elements, and across thread counts.

use super::{AdamW, clip_scale, global_norm, reference};
use crate::testing::{assert_close, assert_thread_independent, random};

const CFG: AdamW = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

/// Fails unless the values agree to 2 units in the last place.
#[track_caller]
fn assert_ulps(what: &str, got: &[f32], expected: &[f32]) {
    for (got, expected) in got.iter().zip(expected) {
        let off = (got - expected).abs();
        assert!(off <= 2.0 * f32::EPSILON * expected.abs(), "{what}: {got} against {expected}");
    }
}

/// `scripts/reference/adamw.py` on torch 2.15: three steps with three learning rates.
#[test]
fn three_steps_equal_torch() {
    let mut params = [1.0f32, -2.0, 0.5, 3.0, -0.25];
    let (mut m, mut v) = ([0.0f32; 5], [0.0f32; 5]);
    let grads =
        [[0.1f32, -0.2, 0.3, 0.0, 1e-6], [-0.5, 0.25, 1e-4, 2.0, 1e-6], [10.0, -20.0, 30.0, -40.0, 0.0]];
    let expected = [
        [0.989f32, -1.988, 0.48950002, 2.997, -0.259651],
        [0.99885267, -1.9872698, 0.47494307, 2.976307, -0.27893367],
        [0.9953558, -1.9831702, 0.47156435, 2.977791, -0.2826612],
    ];
    for (n, (grad, lr)) in grads.iter().zip([0.01, 0.02, 0.005]).enumerate() {
        CFG.step(&mut params, grad, &mut m, &mut v, n as u64 + 1, lr);
        assert_ulps("params", &params, &expected[n]);
    }
    assert_ulps("m", &m, &[0.9631001, -1.9937, 3.0243092, -3.8200002, 1.71e-7]);
    assert_ulps("v", &v, &[5.0123262, 20.004774, 45.004063, 80.19, 9.2625e-14]);
}

/// The same script: norm 5.5 clipped to 1.5.
#[test]
fn clipping_equals_torch() {
    let (a, b) = ([1.0f32, -2.0, 3.0], [-4.0f32, 0.5]);
    let norm = global_norm(&[&a, &b]);
    assert_eq!(norm, 5.5);
    let scale = clip_scale(norm, 1.5) as f32;
    assert_ulps("a", &a.map(|g| g * scale), &[0.27272725, -0.5454545, 0.81818175]);
    assert_ulps("b", &b.map(|g| g * scale), &[-1.090909, 0.13636363]);
    assert_eq!(clip_scale(0.5, 1.0), 1.0);
    assert_eq!(clip_scale(0.0, 1.0), 1.0);
    assert!(clip_scale(f64::NAN, 1.0).is_nan());
}

#[test]
fn every_size_equals_the_reference() {
    for n in [0, 1, 5, 123, 16_384, 40_001] {
        let mut params = random(1, n, 1.0);
        let mut expected: Vec<[f64; 3]> = params.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
        let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
        for step in 1..=20 {
            let grads = random(1 + step, n, 3.0);
            CFG.step(&mut params, &grads, &mut m, &mut v, step, 1e-2);
            for (state, g) in expected.iter_mut().zip(&grads) {
                *state = reference::step(CFG, *state, f64::from(*g), step, 1e-2);
            }
        }
        // Largest error seen: 7.7e-7, from 20 roundings of a parameter of size 1; times 3.
        let expected: Vec<f64> = expected.into_iter().map(|[p, ..]| p).collect();
        let error = assert_close("params", &params, &expected, 2.3e-6);
        println!("adamw {n}: {error:.1e}");
    }
}

#[test]
fn norm_is_exact_in_f64_and_passes_nan_and_infinity_on() {
    let big = vec![1e20f32; 40_001];
    let expected = 40_001f64.sqrt() * f64::from(1e20f32);
    assert!((global_norm(&[&big]) / expected - 1.0).abs() < 1e-12);
    assert_eq!(global_norm(&[]), 0.0);
    assert_eq!(global_norm(&[&[]]), 0.0);
    assert!(global_norm(&[&[1.0], &[f32::NAN]]).is_nan());
    assert_eq!(global_norm(&[&[f32::INFINITY]]), f64::INFINITY);
}

#[test]
fn threads_do_not_change_a_bit() {
    let grads = random(3, 100_003, 1.0);
    assert_thread_independent("params", || {
        let (mut params, mut m, mut v) = (random(4, grads.len(), 1.0), grads.clone(), grads.clone());
        for v in &mut v {
            *v *= *v;
        }
        CFG.step(&mut params, &grads, &mut m, &mut v, 7, 1e-3);
        params
    });
    assert_thread_independent("norm", || {
        let norm = global_norm(&[&grads, &grads[..5]]).to_bits();
        vec![f32::from_bits((norm >> 32) as u32), f32::from_bits(norm as u32)]
    });
}
