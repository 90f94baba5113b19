//! Against the definition: every tier, compute and storage; odd sizes, no targets, large logits, threads.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use half::bf16;

use super::reference::linear_cross_entropy_reference;
use super::{BORDER, RowSum, Sweep, cpu, linear_cross_entropy};
use crate::frozen::{Compute, FrozenWeight, Storage, round_to_bf16};
use crate::isa::Tier;
use crate::testing::{assert_close, assert_thread_independent, random};
use crate::{int8, nf4};

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

/// Rows and sizes around those of slabs (32), blocks (512, or 256 from a width of 1025 on) and tiles.
const SHAPES: [[usize; 3]; 9] = [
    [0, 32, 40],
    [1, 8, 5],
    [1, 64, 512],
    [2, 1, 33],
    [33, 96, 1100],
    [41, 50, 600],
    [90, 16, 31],
    [5, 1056, 300],
    [300, 64, 513],
];

/// Compares loss and gradient with the definition; returns the larger error, relative to the loss and to the
/// largest element of the gradient (at least 1).
fn check(tier: Tier, case: &Case, [loss_bound, dh_bound]: [f64; 2], what: &str) -> [f64; 2] {
    let mut h = case.h.clone();
    if case.head.compute() == Compute::Bf16 {
        round_to_bf16(&mut h);
    }
    let (want, want_dh) = linear_cross_entropy_reference(&h, &case.head, &case.targets);
    let (loss, dh) = cpu::forward(tier, &case.h, &case.head, &case.targets, true);
    let error = (loss - want).abs() / want.abs().max(1.0);
    assert!(error <= loss_bound, "{what}: loss {loss} beside {want}: {error:e}");
    let (alone, none) = cpu::forward(tier, &case.h, &case.head, &case.targets, false);
    assert_eq!((alone.to_bits(), none.len()), (loss.to_bits(), 0), "{what}: without gradient");
    [error, assert_close(what, &dh, &want_dh, dh_bound)]
}

#[test]
fn loss_and_gradient_equal_the_definition_in_every_tier_compute_and_storage() {
    // Measured: loss 1.2e-7; gradient 1.2e-6 in f32 and, where `exp` is rounded to 8 bits, 6.4e-4.
    for (compute, bounds) in [(Compute::F32, [5e-7, 5e-6]), (Compute::Bf16, [5e-7, 2e-3])] {
        let mut worst = [0.0f64; 2];
        for tier in Tier::available() {
            for storage in ["f32", "bf16", "nf4", "int8"] {
                for shape in SHAPES {
                    let what = format!("{} {storage} {compute:?} {shape:?}", tier.name());
                    let errors = check(tier, &case(shape, 2.0, storage, compute), bounds, &what);
                    worst = [worst[0].max(errors[0]), worst[1].max(errors[1])];
                }
            }
        }
        println!("{compute:?}: loss {:.1e}, gradient {:.1e}", worst[0], worst[1]);
    }
}

#[test]
fn large_logits_neither_overflow_nor_lose_the_loss() {
    // One row of the head wins outright, so there is nothing to round: measured 4e-8 and 0.
    for compute in [Compute::F32, Compute::Bf16] {
        for tier in Tier::available() {
            for shape in [[7, 32, 1000], [40, 96, 1100]] {
                let what = format!("{} {compute:?} {shape:?}", tier.name());
                check(tier, &case(shape, 1e4, "f32", compute), [5e-7, 5e-6], &what);
            }
        }
    }
}

#[test]
fn logits_far_from_zero_cost_only_their_own_rounding() {
    // All logits lie within 20 of `offset`, so 1e4 carries them to 1e-3, and the shares of the gradient with
    // them. A row of the head that does not exist would win against -1e4. Measured: loss 9.3e-5, gradient 1.5e-3.
    let mut worst = [0.0f64; 2];
    for compute in [Compute::F32, Compute::Bf16] {
        for (tier, offset) in Tier::available().into_iter().flat_map(|tier| [(tier, 1e4), (tier, -1e4)]) {
            for [tokens, hidden, vocab] in [[7, 32, 1000], [40, 96, 1100]] {
                let mut h = random(1, tokens * hidden, 1.0);
                h.chunks_exact_mut(hidden).for_each(|row| row[0] = offset);
                let mut w = random(2, vocab * hidden, 1.0);
                w.chunks_exact_mut(hidden).for_each(|row| row[0] = 1.0);
                let head = FrozenWeight::new(Storage::F32(w), [vocab, hidden], compute);
                let case = Case { h, head, targets: targets(tokens, vocab) };
                let what = format!("{} {compute:?} {offset} [{tokens}, {hidden}, {vocab}]", tier.name());
                let errors = check(tier, &case, [3e-4, 5e-3], &what);
                worst = [worst[0].max(errors[0]), worst[1].max(errors[1])];
            }
        }
    }
    println!("loss {:.1e}, gradient {:.1e}", worst[0], worst[1]);
}

#[test]
fn values_that_are_not_finite_make_the_loss_so() {
    for compute in [Compute::F32, Compute::Bf16] {
        for (tier, bad) in
            Tier::available().into_iter().flat_map(|tier| [(tier, f32::NAN), (tier, f32::INFINITY)])
        {
            let mut case = case([33, 64, 700], 1.0, "f32", compute);
            case.h[32 * 64 + 5] = bad;
            let (loss, _) = cpu::forward(tier, &case.h, &case.head, &case.targets, false);
            assert!(!loss.is_finite(), "{} {compute:?}: {bad} gives {loss}", tier.name());
        }
    }
}

fn in_the_graph(case: &Case) -> (f32, Vec<f32>) {
    let shape = [case.targets.len(), case.head.shape()[1]];
    let h = Tensor::<2>::from_data(TensorData::new(case.h.clone(), shape), &Device::flex());
    let h = h.autodiff().require_grad();
    let loss = linear_cross_entropy(h.clone(), &case.head, case.targets.clone());
    let value = loss.clone().inner().into_scalar::<f32>();
    // Twice the loss, so that a gradient that ignores what comes from above shows.
    let mut grads = (loss * 2.0).backward();
    (value, h.grad_remove(&mut grads).unwrap().into_data().try_to_vec().unwrap())
}

#[test]
fn the_graph_hands_on_the_gradient() {
    let case = case([9, 24, 70], 1.0, "f32", Compute::F32);
    let (want, want_dh) = linear_cross_entropy_reference(&case.h, &case.head, &case.targets);
    let (loss, dh) = in_the_graph(&case);
    assert!((f64::from(loss) - want).abs() <= 1e-6 * want, "{loss} beside {want}");
    let want_dh: Vec<f64> = want_dh.iter().map(|d| 2.0 * d).collect();
    assert_close("dh", &dh, &want_dh, 1e-5);
}

#[test]
fn rows_without_targets_have_no_loss_and_no_gradient() {
    let mut case = case([4, 8, 10], 1.0, "f32", Compute::Bf16);
    case.targets = vec![-100; 4].into();
    assert_eq!(in_the_graph(&case), (0.0, vec![0.0; 32]));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for compute in [Compute::F32, Compute::Bf16] {
        for tier in Tier::available() {
            let case = case([300, 64, 1300], 3.0, "nf4", compute);
            assert_thread_independent(&format!("{} {compute:?}", tier.name()), || {
                let (loss, mut dh) = cpu::forward(tier, &case.h, &case.head, &case.targets, true);
                let bits = loss.to_bits();
                dh.extend([f32::from_bits((bits >> 32) as u32), f32::from_bits(bits as u32)]);
                dh
            });
        }
    }
}

/// Some rows of a head, as whoever holds only those has them.
fn rows_of(head: &FrozenWeight, rows: std::ops::Range<usize>) -> FrozenWeight {
    let width = head.shape()[1];
    let values = rows.start * width..rows.end * width;
    let storage = match &*head.storage() {
        Storage::F32(all) => Storage::F32(all[values].to_vec()),
        Storage::Bf16(all) => Storage::Bf16(all[values].to_vec()),
        Storage::Int8(all) => Storage::Int8(int8::Int8 {
            codes: all.codes[values].to_vec(),
            row_absmax: all.row_absmax[rows.clone()].to_vec(),
            shape: [rows.len(), width],
        }),
        Storage::Nf4(_) => unreachable!("no test asks for it"),
    };
    FrozenWeight::new(storage, [rows.len(), width], head.compute())
}

fn sweep(tier: Tier, case: &Case, gradient: bool) -> Sweep {
    Sweep::in_tier(tier, &case.h, case.head.shape(), case.head.compute(), &case.targets, gradient)
}

/// Every tier, compute and storage, at sizes with more than one block.
fn sweeps(mut body: impl FnMut(Tier, &Case, &str)) {
    for compute in [Compute::F32, Compute::Bf16] {
        for tier in Tier::available() {
            for storage in ["f32", "bf16", "int8"] {
                for shape in [[33, 96, 1700], [5, 1056, 700], [300, 64, 1025]] {
                    let what = format!("{} {storage} {compute:?} {shape:?}", tier.name());
                    body(tier, &case(shape, 2.0, storage, compute), &what);
                }
            }
        }
    }
}

fn assert_same_in_stretches(tier: Tier, case: &Case, what: &str) {
    let [vocab, _] = case.head.shape();
    let (want, want_dh) = cpu::forward(tier, &case.h, &case.head, &case.targets, true);
    let bits = |dh: &[f32]| dh.iter().map(|d| d.to_bits()).collect::<Vec<u32>>();
    for (blocks, gradient) in [([1, 1], true), ([1, 2], true), ([2, 1], false)] {
        let mut sweep = sweep(tier, case, gradient);
        let mut start = 0;
        for count in blocks.iter().cycle() {
            let end = vocab.min(start + count * BORDER);
            sweep.take(start, &rows_of(&case.head, start..end));
            start = end;
            if start == vocab {
                break;
            }
        }
        let (loss, dh) = sweep.finish();
        assert_eq!(loss.to_bits(), want.to_bits(), "{what}: {loss} beside {want}");
        assert!(if gradient { bits(&dh) == bits(&want_dh) } else { dh.is_empty() }, "{what}: gradient");
    }
}

#[test]
fn a_head_that_comes_in_stretches_gives_the_same_bits() {
    sweeps(assert_same_in_stretches);
    // So many rows that blocks are narrower.
    for tier in Tier::available() {
        assert_same_in_stretches(tier, &case([12_000, 4, 1100], 2.0, "f32", Compute::F32), "many rows");
    }
}

#[test]
fn sweeps_over_parts_of_the_head_make_the_whole() {
    let mut worst = [0.0f64; 3];
    sweeps(|tier, case, what| {
        let [vocab, _] = case.head.shape();
        let (want, want_dh) = cpu::forward(tier, &case.h, &case.head, &case.targets, true);
        let bound = if case.head.compute() == Compute::F32 { 5e-6 } else { 2e-3 };
        for parts in [2, 3] {
            let part = |part: usize| {
                let rows = part * vocab / parts..(part + 1) * vocab / parts;
                let mut sweep = sweep(tier, case, true);
                sweep.take(rows.start, &rows_of(&case.head, rows));
                sweep
            };
            let parts: Vec<Sweep> = (0..parts).map(part).collect();
            let sums = parts.iter().map(Sweep::row_sums);
            let both = |one: Vec<RowSum>, other: Vec<RowSum>| {
                one.into_iter().zip(other).map(|(one, other)| one.with(other)).collect()
            };
            let all = sums.reduce(both).unwrap();
            let loss: f64 = all.iter().map(|row| row.loss()).sum();
            let error = (loss - want).abs() / want.abs();
            assert!(error <= 5e-7, "{what}: {loss} beside {want}");
            let mut dh = vec![0.0f32; want_dh.len()];
            for part in parts {
                dh.iter_mut().zip(part.part_of_gradient(&all)).for_each(|(d, part)| *d += part);
            }
            let dh_error = assert_close(what, &dh, &crate::testing::wide(&want_dh), bound);
            let place = if case.head.compute() == Compute::F32 { 1 } else { 2 };
            worst = [worst[0].max(error), worst[1], worst[2]];
            worst[place] = worst[place].max(dh_error);
        }
    });
    println!("loss {:.1e}, gradient {:.1e} in f32 and {:.1e} in bf16", worst[0], worst[1], worst[2]);
}
