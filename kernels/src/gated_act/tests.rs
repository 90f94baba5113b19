//! Every tier against the reference, forward and gradient; the reference against differences.

use burn::tensor::{Device, Tensor, TensorData};

use super::{GatedKind, backward, cpu, gated_act, reference};
use crate::isa::Tier;
use crate::testing::{assert_close, assert_thread_independent, finite_difference, narrow, random, wide};

const KINDS: [GatedKind; 2] = [GatedKind::SwiGlu, GatedKind::GeGlu];

/// Largest error relative to the largest value, seen on an AVX-512 Xeon over all tiers, kinds, shapes and
/// scales below: 3.8e-7; times 3. The gradient of GeGLU is the worst (`1 + t` cancels for negative gates).
const TOLERANCE: f64 = 1.2e-6;

fn gradient(tier: Tier, gate_up: &[f32], dy: &[f32], f: usize, kind: GatedKind) -> Vec<f32> {
    let mut d = gate_up.to_vec();
    backward::gated_act(tier, &mut d, dy, f, kind);
    d
}

#[test]
fn every_tier_equals_the_reference() {
    for (tier, kind) in Tier::available().into_iter().flat_map(|tier| KINDS.map(|kind| (tier, kind))) {
        for (t, f) in [(0, 5), (1, 1), (1, 5), (5, 123), (17, 64), (33, 1536)] {
            for scale in [1e-3, 3.0, 100.0, 1e4] {
                let (x, dy) = (random(1, t * 2 * f, scale), random(2, t * f, 1.0));
                let what = format!("{} {kind:?} [{t}, {f}] x {scale}", tier.name());
                let y = cpu::gated_act(tier, &x, f, kind);
                let error = assert_close(&what, &y, &reference::gated_act(&wide(&x), f, kind), TOLERANCE);
                let d = gradient(tier, &x, &dy, f, kind);
                let expected = reference::gated_act_backward(&wide(&x), &wide(&dy), f, kind);
                let grad_error = assert_close(&what, &d, &expected, TOLERANCE);
                println!("{what}: {error:.1e}, gradient {grad_error:.1e}");
            }
        }
    }
}

#[test]
fn reference_gradient_equals_differences() {
    for kind in KINDS {
        let (x, dy) = (wide(&random(3, 40, 4.0)), wide(&random(4, 20, 1.0)));
        let expected = finite_difference(&x, &dy, |x| reference::gated_act(x, 5, kind));
        // Central differences in f64 with a step of 1e-5 leave 1e-9; f32 rounding of the comparison 1e-7.
        assert_close("d", &narrow(&reference::gated_act_backward(&x, &dy, 5, kind)), &expected, 3e-7);
    }
}

#[test]
fn extreme_gates_stay_finite() {
    for (tier, kind) in Tier::available().into_iter().flat_map(|tier| KINDS.map(|kind| (tier, kind))) {
        for gate in [-1e30f32, -200.0, -88.5, 88.5, 200.0, 1e30] {
            let y = cpu::gated_act(tier, &[gate, 1.0], 1, kind);
            let d = gradient(tier, &[gate, 1.0], &[1.0], 1, kind);
            let expected = if gate < 0.0 { [0.0, 0.0, 0.0] } else { [gate, 1.0, gate] };
            for (got, expected) in [y[0], d[0], d[1]].into_iter().zip(expected) {
                assert!((got - expected).abs() <= 1e-30, "{kind:?} of {gate}: {got} against {expected}");
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let (x, dy) = (random(5, 100 * 246, 3.0), random(6, 100 * 123, 1.0));
    for (tier, kind) in Tier::available().into_iter().flat_map(|tier| KINDS.map(|kind| (tier, kind))) {
        assert_thread_independent("y", || cpu::gated_act(tier, &x, 123, kind));
        assert_thread_independent("d", || gradient(tier, &x, &dy, 123, kind));
    }
}

#[test]
fn op_on_tensors_gives_value_and_gradient() {
    let (t, f) = (5, 123);
    let device = Device::flex().autodiff();
    let (x, dy) = (random(7, t * 2 * f, 3.0), random(8, t * f, 1.0));
    for kind in KINDS {
        let x_tw = Tensor::<2>::from_data(TensorData::new(x.clone(), [t, 2 * f]), &device).require_grad();
        let dy_tf = Tensor::<2>::from_data(TensorData::new(dy.clone(), [t, f]), &device);
        let y_tf = gated_act(x_tw.clone(), kind);
        let grads = (y_tf.clone() * dy_tf).sum().backward();
        let y = y_tf.into_data().try_to_vec::<f32>().unwrap();
        assert_close("y", &y, &reference::gated_act(&wide(&x), f, kind), TOLERANCE);
        let d = x_tw.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap();
        let expected = reference::gated_act_backward(&wide(&x), &wide(&dy), f, kind);
        assert_close("d", &d, &expected, TOLERANCE);
    }
}
