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
    (0, 0.7498942017555237, 1.0, 0.0),
    (0, 0.23713736236095428, 1.0, 0.0),
    (1, 1.0, 0.5403023362159729, 0.8414709568023682),
    (1, 0.7498942017555237, 0.7317609786987305, 0.6815613508224487),
    (1, 0.23713736236095428, 0.9720144271850586, 0.23492106795310974),
    (7, 1.0, 0.7539022564888, 0.6569865942001343),
    (7, 0.7498942017555237, 0.5114492774009705, -0.8593134880065918),
    (7, 0.23713736236095428, -0.0890471488237381, 0.996027410030365),
    (1000, 1.0, 0.5623790621757507, 0.8268795609474182),
    (1000, 0.7498942017555237, -0.584592878818512, 0.811326801776886),
    (1000, 0.23713736236095428, -0.05286107584834099, -0.9986018538475037),
    (4095, 1.0, -0.06597599387168884, -0.9978212118148804),
    (4095, 0.7498942017555237, -0.09004636108875275, -0.9959375858306885),
    (4095, 0.23713736236095428, -0.9475278258323669, -0.3196733295917511),
    (8191, 1.0, -0.6463904976844788, -0.7630068063735962),
    (8191, 0.7498942017555237, -0.8420827984809875, -0.539348304271698),
    (8191, 0.23713736236095428, 0.6310968399047852, 0.775704026222229),
    (65537, 1.0, -0.9723619818687439, -0.23347844183444977),
    (65537, 0.7498942017555237, 0.3067055344581604, -0.9518044590950012),
    (65537, 0.23713736236095428, -0.982496976852417, 0.18627846240997314),
    (131071, 1.0, -0.8179835081100464, -0.5752416849136353),
    (131071, 0.7498942017555237, 0.0557151734828949, 0.9984467029571533),
    (131071, 0.23713736236095428, 0.4663082957267761, -0.8846222758293152),
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
