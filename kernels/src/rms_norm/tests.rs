//! Every tier against the reference, forward and gradient; the reference against differences.

use burn::tensor::{Device, Tensor, TensorData};

use super::{backward, cpu, reference, rms_norm};
use crate::isa::Tier;
use crate::testing::{assert_close, assert_thread_independent, finite_difference, narrow, random, wide};

const EPS: f32 = 1e-5;
/// Largest error seen on an AVX-512 Xeon over all tiers and shapes below: 1.6e-7 (f32 rounding), times 3.
const TOLERANCE: f64 = 5e-7;

#[test]
fn every_tier_equals_the_reference() {
    let shapes = [(0, 5), (1, 3), (1, 5), (5, 123), (17, 64), (33, 576), (2, 1000)];
    for tier in Tier::available() {
        for (t, d) in shapes {
            for scale in [1e-3, 1.0, 1e6] {
                let (x, w, dy) = (random(1, t * d, scale), random(2, d, 2.0), random(3, t * d, 1.0));
                let (x64, w64, eps) = (wide(&x), wide(&w), f64::from(EPS));
                let y = cpu::rms_norm(tier, &x, &w, EPS);
                let what = format!("{} [{t}, {d}] x {scale}", tier.name());
                let error = assert_close(&what, &y, &reference::rms_norm(&x64, &w64, eps), TOLERANCE);
                let dx = backward::rms_norm(tier, &x, &w, &dy, EPS);
                let expected = reference::rms_norm_backward(&x64, &w64, &wide(&dy), eps);
                // dx is of the size of 1 / x: compare times x's scale.
                let unit = |v: f64| v * f64::from(scale);
                let dx: Vec<f32> = dx.iter().map(|&v| unit(f64::from(v)) as f32).collect();
                let expected: Vec<f64> = expected.into_iter().map(unit).collect();
                let grad_error = assert_close(&what, &dx, &expected, TOLERANCE);
                println!("{what}: forward {error:.1e}, dx {grad_error:.1e}");
            }
        }
    }
}

#[test]
fn reference_gradient_equals_differences() {
    let (x, w, dy) = (wide(&random(4, 15, 1.0)), wide(&random(5, 5, 2.0)), wide(&random(6, 15, 1.0)));
    let expected = finite_difference(&x, &dy, |x| reference::rms_norm(x, &w, 1e-5));
    // Central differences in f64 with a step of 1e-5 leave 1e-8; f32 rounding of the comparison 1e-7.
    assert_close("dx", &narrow(&reference::rms_norm_backward(&x, &w, &dy, 1e-5)), &expected, 5e-7);
}

#[test]
fn threads_do_not_change_a_bit() {
    let (x, w, dy) = (random(7, 100 * 123, 1.0), random(8, 123, 1.0), random(9, 100 * 123, 1.0));
    for tier in Tier::available() {
        assert_thread_independent("y", || cpu::rms_norm(tier, &x, &w, EPS));
        assert_thread_independent("dx", || backward::rms_norm(tier, &x, &w, &dy, EPS));
    }
}

#[test]
fn a_nan_stays_in_its_row() {
    let mut x = random(10, 3 * 8, 1.0);
    x[9] = f32::NAN;
    let y = cpu::rms_norm(Tier::Portable, &x, &[1.0; 8], EPS);
    let finite: Vec<bool> = y.chunks(8).map(|row| row.iter().all(|y| y.is_finite())).collect();
    assert_eq!(finite, [true, false, true]);
}

#[test]
fn op_on_tensors_gives_value_and_gradient() {
    let (t, d) = (5, 123);
    let device = Device::flex().autodiff();
    let (x, w, dy) = (random(11, t * d, 1.0), random(12, d, 1.0), random(13, t * d, 1.0));
    let x_td = Tensor::<2>::from_data(TensorData::new(x.clone(), [t, d]), &device).require_grad();
    let w_d = Tensor::<1>::from_data(TensorData::new(w.clone(), [d]), &device);
    let dy_td = Tensor::<2>::from_data(TensorData::new(dy.clone(), [t, d]), &device);
    let y_td = rms_norm(x_td.clone(), w_d, EPS);
    let grads = (y_td.clone() * dy_td).sum().backward();
    let (x, w, dy) = (wide(&x), wide(&w), wide(&dy));
    let y = y_td.into_data().try_to_vec::<f32>().unwrap();
    assert_close("y", &y, &reference::rms_norm(&x, &w, f64::from(EPS)), TOLERANCE);
    let dx = x_td.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap();
    assert_close("dx", &dx, &reference::rms_norm_backward(&x, &w, &dy, f64::from(EPS)), TOLERANCE);
}
