//! `linear_cross_entropy` on a device: every compute and storage; odd sizes, no targets, large logits.

use std::sync::Arc;

use burn::tensor::Device;
use half::bf16;
use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage, round_to_bf16};
use seedcorn_kernels::linear_cross_entropy::linear_cross_entropy;
use seedcorn_kernels::linear_cross_entropy::reference::linear_cross_entropy_reference;
use seedcorn_kernels::{int8, nf4};

use crate::harness::{Test, assert_close, random, tensor, values};

pub(crate) const TESTS: &[Test] = &[
    ("linear_cross_entropy: loss and gradient equal the definition", loss_and_gradient_equal_the_definition),
    ("linear_cross_entropy: large logits do not overflow", large_logits_do_not_overflow),
    ("linear_cross_entropy: values that are not finite make the loss so", not_finite_stays_so),
    ("linear_cross_entropy: rows without targets have no loss", rows_without_targets_have_no_loss),
];

struct Case {
    h: Vec<f32>,
    head: FrozenWeight,
    targets: Arc<[i32]>,
}

/// Targets in the first and the last block and between, with rows that have none.
fn targets(tokens: usize, vocab: usize) -> Arc<[i32]> {
    let target = |i: usize| match i % 5 {
        0 => vocab as i32 - 1,
        1 => -100,
        2 => 0,
        _ => ((i * 7919) % vocab) as i32,
    };
    (0..tokens).map(target).collect()
}

/// Logits of about `magnitude`, from `h` of that size and a head of size 1.
fn case([tokens, hidden, vocab]: [usize; 3], magnitude: f32, storage: &str, compute: Compute) -> Case {
    let h = random(tokens as u64, tokens * hidden, magnitude * 3.0 / (hidden as f32).sqrt());
    let w = random(vocab as u64, vocab * hidden, 1.0);
    let shape = [vocab, hidden];
    let storage = match storage {
        "f32" => Storage::F32(w),
        "bf16" => Storage::Bf16(w.into_iter().map(bf16::from_f32).collect()),
        "nf4" => Storage::Nf4(nf4::quantize(&w, shape, 64, true)),
        _ => Storage::Int8(int8::quantize(&w, shape)),
    };
    let head = FrozenWeight::new(storage, shape, compute);
    Case { h, head, targets: targets(tokens, vocab) }
}

/// The loss, and the gradient of twice the loss, so that one that ignores what comes from above shows.
fn run(case: &Case, device: &Device) -> (f32, Vec<f32>) {
    let shape = [case.targets.len(), case.head.shape()[1]];
    let h = tensor(&case.h, shape, device).autodiff().require_grad();
    let head = case.head.clone().on(device).expect("it fits");
    let loss = linear_cross_entropy(h.clone(), &head, case.targets.clone());
    let value = values(loss.clone().inner())[0];
    let alone = linear_cross_entropy(tensor(&case.h, shape, device), &head, case.targets.clone());
    let alone = values(alone)[0];
    assert_eq!(alone.to_bits(), value.to_bits(), "without a gradient");
    let mut grads = (loss * 2.0).backward();
    (value, values(h.grad_remove(&mut grads).expect("tracked")))
}

fn check(case: &Case, device: &Device, [loss_bound, dh_bound]: [f64; 2], what: &str) {
    let mut h = case.h.clone();
    if case.head.compute() == Compute::Bf16 {
        round_to_bf16(&mut h);
    }
    let (want, want_dh) = linear_cross_entropy_reference(&h, &case.head, &case.targets);
    let (loss, dh) = run(case, device);
    let error = (f64::from(loss) - want).abs() / want.abs().max(1.0);
    assert!(error <= loss_bound, "{what}: loss {loss} beside {want}: {error:e}");
    let want_dh: Vec<f64> = want_dh.iter().map(|d| 2.0 * d).collect();
    let dh_error = assert_close(what, &dh, &want_dh, dh_bound);
    println!("{what}: loss {error:.1e}, gradient {dh_error:.1e}");
}

/// Rows and sizes around those of tiles (64), units (64) and blocks of the vocabulary (2048).
const SHAPES: [[usize; 3]; 8] = [
    [0, 32, 40],
    [1, 8, 5],
    [2, 1, 33],
    [33, 96, 1100],
    [41, 50, 2048],
    [90, 16, 31],
    [5, 200, 2049],
    [70, 24, 4500],
];

fn loss_and_gradient_equal_the_definition(device: &Device) {
    // The bounds of the CPU's tiers: seen on lavapipe, 2e-7 and 1e-6; 5e-4 where `exp` is rounded to 8 bits.
    for (compute, bounds) in [(Compute::F32, [5e-7, 5e-6]), (Compute::Bf16, [5e-7, 2e-3])] {
        for storage in ["f32", "bf16", "nf4", "int8"] {
            for shape in SHAPES {
                let what = format!("{storage} {compute:?} {shape:?}");
                check(&case(shape, 2.0, storage, compute), device, bounds, &what);
            }
        }
    }
}

fn large_logits_do_not_overflow(device: &Device) {
    for compute in [Compute::F32, Compute::Bf16] {
        for shape in [[7, 32, 1000], [40, 96, 3100]] {
            let what = format!("{compute:?} {shape:?}");
            check(&case(shape, 1e4, "f32", compute), device, [5e-7, 5e-6], &what);
        }
    }
}

fn not_finite_stays_so(device: &Device) {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut case = case([33, 64, 700], 1.0, "f32", Compute::F32);
        case.h[32 * 64 + 5] = bad;
        let h = tensor(&case.h, [33, 64], device);
        let loss = values(linear_cross_entropy(h, &case.head.on(device).expect("it fits"), case.targets))[0];
        assert!(!loss.is_finite(), "{bad} gives {loss}");
    }
}

fn rows_without_targets_have_no_loss(device: &Device) {
    let mut case = case([4, 8, 10], 1.0, "f32", Compute::Bf16);
    case.targets = vec![-100; 4].into();
    assert_eq!(run(&case, device), (0.0, vec![0.0; 32]));
}
