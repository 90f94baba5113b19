//! Every tier against the reference, forward and gradient; large positions against torch.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use super::{RopeTable, backward, cpu, reference, rope};
use crate::attention::QkvLayout;
use crate::isa::Tier;
use crate::testing::{assert_close, assert_thread_independent, finite_difference, random, wide};

/// Largest error seen on an AVX-512 Xeon over all tiers and shapes below: 1.1e-7 (f32 rounding), times 3.
const TOLERANCE: f64 = 3.3e-7;

fn table(head_dim: usize, attention_scaling: f32) -> RopeTable {
    let inv_freq = (0..head_dim / 2).map(|i| 1.0 / 10_000f32.powf(2.0 * i as f32 / head_dim as f32));
    RopeTable { inv_freq: inv_freq.collect(), attention_scaling }
}

fn positions(t: usize) -> Arc<[u32]> {
    (0..t).map(|i| (i * i * 997 % 131_072) as u32).collect()
}

#[test]
fn every_tier_equals_the_reference() {
    for tier in Tier::available() {
        for (t, num_heads, num_kv_heads, head_dim) in
            [(0, 1, 1, 2), (1, 1, 1, 6), (5, 9, 3, 64), (123, 4, 2, 10)]
        {
            for (scale, scaling) in [(1.0, 1.0), (1e6, 1.25)] {
                let layout = QkvLayout { num_heads, num_kv_heads, head_dim };
                let (table, positions) = (table(head_dim, scaling), positions(t));
                let x = random(1, t * layout.width(), scale);
                let mut y = x.clone();
                cpu::rotate(tier, &mut y, layout, &positions, &table);
                let expected = reference::rope(&wide(&x), layout, &positions, &table);
                let what = format!("{} {t} x {layout:?}", tier.name());
                let error = assert_close(&what, &y, &expected, TOLERANCE);
                println!("{what}: {error:.1e}");
            }
        }
    }
}

#[test]
fn gradient_equals_differences() {
    let layout = QkvLayout { num_heads: 2, num_kv_heads: 1, head_dim: 6 };
    let (table, positions) = (table(6, 1.5), positions(3));
    let n = 3 * layout.width();
    let (x, dy) = (random(2, n, 1.0), random(3, n, 1.0));
    let expected =
        finite_difference(&wide(&x), &wide(&dy), |x| reference::rope(x, layout, &positions, &table));
    for tier in Tier::available() {
        let mut dx = dy.clone();
        backward::rotate(tier, &mut dx, layout, &positions, &table);
        // The op is linear, so differences are exact up to f64 rounding over the step, 1e-10.
        assert_close("dx", &dx, &expected, TOLERANCE);
    }
}

/// Position, `inv_freq`, cosine and sine from torch 2.15 on the CPU: `scripts/reference/rope_angles.py`.
const TORCH: [(u32, f32, f32, f32); 24] = [
    (0, 1.0, 1.0, 0.0),
    (0, 0.7498942, 1.0, 0.0),
    (0, 0.23713736, 1.0, 0.0),
    (1, 1.0, 0.54030234, 0.84147096),
    (1, 0.7498942, 0.731761, 0.68156135),
    (1, 0.23713736, 0.9720144, 0.23492107),
    (7, 1.0, 0.75390226, 0.6569866),
    (7, 0.7498942, 0.5114493, -0.8593135),
    (7, 0.23713736, -0.08904715, 0.9960274),
    (1000, 1.0, 0.56237906, 0.82687956),
    (1000, 0.7498942, -0.5845929, 0.8113268),
    (1000, 0.23713736, -0.052861076, -0.99860185),
    (4095, 1.0, -0.065975994, -0.9978212),
    (4095, 0.7498942, -0.09004636, -0.9959376),
    (4095, 0.23713736, -0.9475278, -0.31967333),
    (8191, 1.0, -0.6463905, -0.7630068),
    (8191, 0.7498942, -0.8420828, -0.5393483),
    (8191, 0.23713736, 0.63109684, 0.775704),
    (65537, 1.0, -0.972362, -0.23347844),
    (65537, 0.7498942, 0.30670553, -0.95180446),
    (65537, 0.23713736, -0.982497, 0.18627846),
    (131071, 1.0, -0.8179835, -0.5752417),
    (131071, 0.7498942, 0.055715173, 0.9984467),
    (131071, 0.23713736, 0.4663083, -0.8846223),
];

#[test]
fn large_positions_equal_torch() {
    let layout = QkvLayout { num_heads: 1, num_kv_heads: 1, head_dim: 2 };
    for (position, inv_freq, cos, sin) in TORCH {
        let table = RopeTable { inv_freq: [inv_freq].into(), attention_scaling: 1.0 };
        let mut row = [1.0, 0.0, 0.0, 1.0, 7.0, 8.0];
        cpu::rotate(Tier::Portable, &mut row, layout, &[position], &table);
        // Both libraries promise one unit in the last place: 6e-8 below 1, and they may err apart.
        for (got, expected) in row.into_iter().zip([cos, sin, -sin, cos, 7.0, 8.0]) {
            assert!((got - expected).abs() <= 1.2e-7, "{position} x {inv_freq}: {got} against {expected}");
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let layout = QkvLayout { num_heads: 3, num_kv_heads: 1, head_dim: 10 };
    let (x, positions) = (random(4, 123 * layout.width(), 1.0), positions(123));
    for tier in Tier::available() {
        assert_thread_independent("y", || {
            let mut y = x.clone();
            cpu::rotate(tier, &mut y, layout, &positions, &table(10, 1.0));
            y
        });
    }
}

#[test]
fn op_on_tensors_gives_value_and_gradient() {
    let layout = QkvLayout { num_heads: 2, num_kv_heads: 1, head_dim: 8 };
    let (t, width) = (5, layout.width());
    let device = Device::flex().autodiff();
    let tensor = |x: &[f32]| Tensor::<2>::from_data(TensorData::new(x.to_vec(), [t, width]), &device);
    let (x, dy) = (random(5, t * width, 1.0), random(6, t * width, 1.0));
    let (table, positions) = (table(8, 1.0), positions(t));
    let x_tw = tensor(&x).require_grad();
    let y_tw = rope(x_tw.clone(), layout, positions.clone(), table.clone());
    let grads = (y_tw.clone() * tensor(&dy)).sum().backward();
    let y = y_tw.into_data().try_to_vec::<f32>().unwrap();
    assert_close("y", &y, &reference::rope(&wide(&x), layout, &positions, &table), TOLERANCE);
    let dx = x_tw.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap();
    let mut expected = dy;
    backward::rotate(crate::isa::tier(), &mut expected, layout, &positions, &table);
    assert_eq!(dx, expected);
}
