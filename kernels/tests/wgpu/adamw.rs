//! The optimizer's step and the sums for the gradient norm, on a device.

use burn::tensor::Device;
use seedcorn_kernels::adamw::{AdamW, global_norm, reference, sums_of_squares};

use crate::harness::{Test, assert_close, random, tensor, values};

pub(crate) const TESTS: &[Test] = &[
    ("adamw: twenty steps equal the definition", twenty_steps_equal_the_definition),
    ("adamw: the norm is the CPU's", the_norm_is_the_cpus),
];

const CFG: AdamW = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

/// As `adamw/tests.rs` has it for the CPU: 20 roundings of a parameter of size 1.
const TOLERANCE: f64 = 2.3e-6;

fn twenty_steps_equal_the_definition(device: &Device) {
    for shape in [[1, 1], [5, 123], [16, 576], [40_001, 1]] {
        let n = shape[0] * shape[1];
        let start = random(1, n, 1.0);
        let mut expected: Vec<[f64; 3]> = start.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
        let zeros = || tensor(&vec![0.0; n], shape, device);
        let mut state = [tensor(&start, shape, device), zeros(), zeros()];
        for step in 1..=20 {
            let grads = random(1 + step, n, 3.0);
            state = CFG.step_tensor(state, tensor(&grads, shape, device), [0.125, 0.5], step, 1e-2);
            for (state, g) in expected.iter_mut().zip(&grads) {
                *state = reference::step(CFG, *state, f64::from(*g) * 0.0625, step, 1e-2);
            }
        }
        for (place, (what, got)) in ["params", "m", "v"].into_iter().zip(state).enumerate() {
            let expected: Vec<f64> = expected.iter().map(|state| state[place]).collect();
            let error = assert_close(&format!("{what} {shape:?}"), &values(got), &expected, TOLERANCE);
            println!("adamw {shape:?} {what}: {error:.1e}");
        }
    }
}

fn the_norm_is_the_cpus(device: &Device) {
    for shape in [[1, 1], [5, 123], [3, 16_384], [40_001, 1]] {
        let grads = random(9, shape[0] * shape[1], 2.0);
        let scaled: Vec<f32> = grads.iter().map(|g| g * 0.25).collect();
        let sums = values(sums_of_squares(tensor(&grads, shape, device), 0.25));
        assert_eq!(sums.len(), grads.len().div_ceil(16_384));
        let norm = sums.iter().map(|&sum| f64::from(sum)).sum::<f64>().sqrt();
        let off = (norm / global_norm(&[&scaled]) - 1.0).abs();
        println!("norm {shape:?}: {off:.1e}");
        // A tree of f32 sums of 256 a unit. Seen on lavapipe: 1.8e-8; times 5.
        assert!(off < 9e-8, "{shape:?}: {off:e}");
    }
    let broken = sums_of_squares(tensor(&[1.0, f32::NAN], [1, 2], device), 1.0);
    assert!(values(broken)[0].is_nan());
}
