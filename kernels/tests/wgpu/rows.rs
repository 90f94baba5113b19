//! The ops that take rows or elements: norms, rotation, gates, lookup, addition.

use std::sync::Arc;

use burn::tensor::Device;
use seedcorn_kernels::add::add;
use seedcorn_kernels::attention::QkvLayout;
use seedcorn_kernels::embedding::embedding;
use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage};
use seedcorn_kernels::gated_act::{self, GatedKind, gated_act};
use seedcorn_kernels::qk_norm::{self, qk_norm};
use seedcorn_kernels::rms_norm::{self, rms_norm};
use seedcorn_kernels::rope::{self, RopeTable, rope};
use seedcorn_kernels::{int8, nf4};

use crate::harness::{Test, assert_close, random, tensor, values, wide, with_gradient};

pub(crate) const TESTS: &[Test] = &[
    ("rms_norm equals the reference", rms_norm_equals_the_reference),
    ("qk_norm equals the reference", qk_norm_equals_the_reference),
    ("rope equals the reference", rope_equals_the_reference),
    ("gated_act equals the reference", gated_act_equals_the_reference),
    ("extreme gates stay finite", extreme_gates_stay_finite),
    ("every storage reads as on the host", every_storage_reads_as_on_the_host),
    ("a weight that is too large is an error", a_weight_that_is_too_large_is_an_error),
    ("every element is added once", every_element_is_added_once),
];

/// Largest error seen on lavapipe over all cases, forward and gradient: 1.9e-7; times 3.
const TOLERANCE: f64 = 6e-7;

fn rms_norm_equals_the_reference(device: &Device) {
    for (t, d) in [(0, 5), (1, 3), (1, 5), (5, 123), (17, 64), (33, 576), (2, 1000)] {
        for scale in [1e-3, 1.0, 1e6] {
            let (x, w, dy) = (random(1, t * d, scale), random(2, d, 2.0), random(3, t * d, 1.0));
            let weight = tensor(&w, [d], device).autodiff();
            let (y, dx) = with_gradient(&x, [t, d], &dy, device, |x| rms_norm(x, weight.clone(), 1e-5));
            let (x, w, dy, eps) = (wide(&x), wide(&w), wide(&dy), f64::from(1e-5f32));
            let what = format!("[{t}, {d}] x {scale}");
            let error = assert_close(&what, &y, &rms_norm::reference::rms_norm(&x, &w, eps), TOLERANCE);
            // dx is of the size of 1 / x: compare times x's scale.
            let unit = |v: f64| v * f64::from(scale);
            let dx: Vec<f32> = dx.iter().map(|&v| unit(f64::from(v)) as f32).collect();
            let expected = rms_norm::reference::rms_norm_backward(&x, &w, &dy, eps);
            let expected: Vec<f64> = expected.into_iter().map(unit).collect();
            let grad_error = assert_close(&what, &dx, &expected, TOLERANCE);
            println!("rms_norm {what}: {error:.1e}, gradient {grad_error:.1e}");
        }
    }
}

fn qk_norm_equals_the_reference(device: &Device) {
    for (t, num_heads, num_kv_heads, head_dim) in [(0, 1, 1, 4), (1, 1, 1, 5), (5, 4, 2, 123), (33, 6, 2, 64)]
    {
        let layout = QkvLayout { num_heads, num_kv_heads, head_dim };
        let n = t * layout.width();
        let (x, dy) = (random(1, n, 1.0), random(2, n, 1.0));
        let (q, k) = (random(3, head_dim, 2.0), random(4, head_dim, 2.0));
        let weight = |w: &[f32]| tensor(w, [head_dim], device).autodiff();
        let (y, d) = with_gradient(&x, [t, layout.width()], &dy, device, |x| {
            qk_norm(x, layout, weight(&q), weight(&k), 1e-6)
        });
        let (x, dy, q, k, eps) = (wide(&x), wide(&dy), wide(&q), wide(&k), f64::from(1e-6f32));
        let expected = qk_norm::reference::qk_norm(&x, [&q, &k], layout, eps);
        assert_close("y", &y, &expected, TOLERANCE);
        let expected = qk_norm::reference::qk_norm_backward(&x, [&q, &k], &dy, layout, eps);
        assert_close("d", &d, &expected, 3.0 * TOLERANCE);
    }
}

fn rope_equals_the_reference(device: &Device) {
    for (t, num_heads, num_kv_heads, head_dim) in [(0, 1, 1, 2), (1, 1, 1, 6), (5, 9, 3, 64), (123, 4, 2, 10)]
    {
        for (scale, attention_scaling) in [(1.0, 1.0), (1e6, 1.25)] {
            let layout = QkvLayout { num_heads, num_kv_heads, head_dim };
            let inv_freq = (0..head_dim / 2).map(|i| 1.0 / 10_000f32.powf(2.0 * i as f32 / head_dim as f32));
            let table = RopeTable { inv_freq: inv_freq.collect(), attention_scaling };
            let positions: Arc<[u32]> = (0..t).map(|i| (i * i * 997 % 131_072) as u32).collect();
            let n = t * layout.width();
            let (x, dy) = (random(1, n, scale), random(2, n, 1.0));
            let (y, dx) = with_gradient(&x, [t, layout.width()], &dy, device, |x| {
                rope(x, layout, positions.clone(), table.clone())
            });
            let expected = rope::reference::rope(&wide(&x), layout, &positions, &table);
            assert_close("y", &y, &expected, TOLERANCE);
            // The gradient is the rotation by negative angles.
            let back = RopeTable { inv_freq: table.inv_freq.iter().map(|f| -f).collect(), ..table };
            let expected = rope::reference::rope(&wide(&dy), layout, &positions, &back);
            assert_close("dx", &dx, &expected, TOLERANCE);
        }
    }
}

/// Largest error seen on lavapipe: 1.4e-6, of GeGLU, whose `1 + tanh` cancels for negative gates and whose tanh is the
/// driver's; times 3.
const GATE_TOLERANCE: f64 = 4.2e-6;

fn gated_act_equals_the_reference(device: &Device) {
    for kind in [GatedKind::SwiGlu, GatedKind::GeGlu] {
        for (t, f) in [(0, 5), (1, 1), (1, 5), (5, 123), (33, 1536)] {
            for scale in [1e-3, 3.0, 100.0, 1e4] {
                let (x, dy) = (random(1, t * 2 * f, scale), random(2, t * f, 1.0));
                let (y, d) = with_gradient(&x, [t, 2 * f], &dy, device, |x| gated_act(x, kind));
                let (x, dy) = (wide(&x), wide(&dy));
                let what = format!("{kind:?} [{t}, {f}] x {scale}");
                let expected = gated_act::reference::gated_act(&x, f, kind);
                let error = assert_close(&what, &y, &expected, GATE_TOLERANCE);
                let expected = gated_act::reference::gated_act_backward(&x, &dy, f, kind);
                let grad_error = assert_close(&what, &d, &expected, GATE_TOLERANCE);
                println!("{what}: {error:.1e}, gradient {grad_error:.1e}");
            }
        }
    }
}

fn extreme_gates_stay_finite(device: &Device) {
    for kind in [GatedKind::SwiGlu, GatedKind::GeGlu] {
        for gate in [-1e30f32, -200.0, -88.5, 88.5, 200.0, 1e30] {
            let (y, d) = with_gradient(&[gate, 1.0], [1, 2], &[1.0], device, |x| gated_act(x, kind));
            let expected = if gate < 0.0 { [0.0, 0.0, 0.0] } else { [gate, 1.0, gate] };
            for (got, expected) in [y[0], d[0], d[1]].into_iter().zip(expected) {
                assert!((got - expected).abs() <= 1e-30, "{kind:?} of {gate}: {got} against {expected}");
            }
        }
    }
}

/// Storages of a matrix whose rows do not fill words, and of one whose blocks cross rows.
fn every_storage_reads_as_on_the_host(device: &Device) {
    for shape in [[7, 5], [40, 33], [3, 4096]] {
        let dense = random(9, shape[0] * shape[1], 0.7);
        let narrow = || dense.iter().map(|&x| half::bf16::from_f32(x)).collect();
        let mut storages = vec![
            ("f32", Storage::F32(dense.clone())),
            ("bf16", Storage::Bf16(narrow())),
            ("int8", Storage::Int8(int8::quantize(&dense, shape))),
        ];
        for (block, double) in [(64, true), (64, false), (32, true), (4096, true)] {
            storages.push(("nf4", Storage::Nf4(nf4::quantize(&dense, shape, block, double))));
        }
        for (name, storage) in storages {
            for compute in [Compute::F32, Compute::Bf16] {
                let storage = match &storage {
                    Storage::F32(x) => Storage::F32(x.clone()),
                    Storage::Bf16(x) => Storage::Bf16(x.clone()),
                    Storage::Int8(x) => Storage::Int8(x.clone()),
                    Storage::Nf4(x) => Storage::Nf4(x.clone()),
                    Storage::Device(_) => unreachable!("made on the host"),
                };
                let host = FrozenWeight::new(storage, shape, compute);
                let mut expected = vec![0.0; dense.len()];
                host.read(0, &mut expected);
                let bytes = host.bytes();
                let there = host.on(device).expect("it fits");
                assert!(there.is_on_device() && there.bytes() == bytes, "{name}");
                let ids: Vec<u32> = (0..shape[0] as u32).rev().collect();
                let got = values(embedding(&there, &ids, device));
                let expected: Vec<f32> = expected.chunks(shape[1]).rev().flatten().copied().collect();
                if compute == Compute::Bf16 {
                    // One unit in the last place of f32 before rounding may end at the neighbour.
                    assert_close(name, &got, &wide(&expected), 2.0f64.powi(-8));
                } else {
                    assert_close(name, &got, &wide(&expected), 1.2e-7);
                }
            }
        }
    }
}

/// 5 GiB of zeros, of which no page is ever touched: above the 4 GiB that Vulkan lets a kernel see at one time.
fn a_weight_that_is_too_large_is_an_error(device: &Device) {
    let shape = [1 << 16, 20_480];
    let weight = FrozenWeight::new(Storage::F32(vec![0.0; shape[0] * shape[1]]), shape, Compute::F32);
    let error = weight.on(device).expect_err("refused");
    println!("{error}");
    assert!(error.bytes == 5 << 30 && error.largest < error.bytes, "{error}");
}

fn every_element_is_added_once(device: &Device) {
    for [rows, cols] in [[0, 3], [1, 1], [5, 123], [300, 129]] {
        let of = |factor: f32| (0..rows * cols).map(|i| i as f32 * factor).collect::<Vec<_>>();
        let (a, b) = (tensor(&of(1.0), [rows, cols], device), tensor(&of(0.5), [rows, cols], device));
        assert_eq!(values(add(a.clone(), b)), of(1.5));
        assert_eq!(values(a), of(1.0));
    }
}
