//! Every tier against the reference, forward and gradient; the reference against differences.

use burn::tensor::{Device, Tensor, TensorData};

use super::{backward, cpu, qk_norm, reference};
use crate::attention::QkvLayout;
use crate::isa::Tier;
use crate::testing::{assert_close, assert_thread_independent, finite_difference, narrow, random, wide};

const EPS: f32 = 1e-6;
/// Largest error relative to the largest value seen on an AVX-512 Xeon over all tiers and cases below:
/// 1.6e-7, times 3.
const TOLERANCE: f64 = 5e-7;

fn layout(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> QkvLayout {
    QkvLayout { num_heads, num_kv_heads, head_dim }
}

#[test]
fn every_tier_equals_the_reference() {
    for tier in Tier::available() {
        for (t, layout) in
            [(0, layout(1, 1, 4)), (1, layout(1, 1, 5)), (5, layout(4, 2, 123)), (33, layout(6, 2, 64))]
        {
            for scale in [1.0f32, 1e4] {
                let n = t * layout.width();
                let (x, dy) = (random(1, n, scale), random(2, n, 1.0));
                let (q, k) = (random(3, layout.head_dim, 2.0), random(4, layout.head_dim, 2.0));
                let (q64, k64) = (wide(&q), wide(&k));
                let what = format!("{} {t} {layout:?} x {scale}", tier.name());
                let y = cpu::qk_norm(tier, &x, [&q, &k], layout, EPS);
                let d = backward::qk_norm(tier, &x, [&q, &k], &dy, layout, EPS);
                // Value heads are copies; without them y is of size 1 and the gradient of size 1 / x.
                let end = layout.v(0).start;
                let values = |x: &[f32]| -> Vec<f32> {
                    x.chunks(layout.width()).flat_map(|row| row[end..].to_vec()).collect()
                };
                assert_eq!((values(&y), values(&d)), (values(&x), values(&dy)), "{what}");
                let heads = |x: &[f32], factor: f32| -> Vec<f32> {
                    x.chunks(layout.width()).flat_map(|row| row[..end].iter().map(|x| x * factor)).collect()
                };
                let heads64 = |x: &[f64], factor: f32| -> Vec<f64> {
                    x.chunks(layout.width())
                        .flat_map(|row| row[..end].iter().map(|x| x * f64::from(factor)))
                        .collect()
                };
                let (x, dy, eps) = (wide(&x), wide(&dy), f64::from(EPS));
                let expected = reference::qk_norm(&x, [&q64, &k64], layout, eps);
                let error = assert_close(&what, &heads(&y, 1.0), &heads64(&expected, 1.0), TOLERANCE);
                let expected = reference::qk_norm_backward(&x, [&q64, &k64], &dy, layout, eps);
                let grad_error =
                    assert_close(&what, &heads(&d, scale), &heads64(&expected, scale), TOLERANCE);
                println!("{what}: {error:.1e}, gradient {grad_error:.1e}");
            }
        }
    }
}

#[test]
fn reference_gradient_equals_differences() {
    let layout = layout(2, 1, 3);
    let n = 2 * layout.width();
    let (x, dy) = (wide(&random(5, n, 1.0)), wide(&random(6, n, 1.0)));
    let (q, k) = (wide(&random(7, 3, 2.0)), wide(&random(8, 3, 2.0)));
    let expected = finite_difference(&x, &dy, |x| reference::qk_norm(x, [&q, &k], layout, 1e-6));
    // Central differences in f64 with a step of 1e-5 leave 1e-8; f32 rounding of the comparison 1e-7.
    let d = narrow(&reference::qk_norm_backward(&x, [&q, &k], &dy, layout, 1e-6));
    assert_close("dqkv", &d, &expected, 5e-7);
}

#[test]
fn threads_do_not_change_a_bit() {
    let layout = layout(3, 1, 10);
    let (x, dy) = (random(9, 123 * layout.width(), 1.0), random(10, 123 * layout.width(), 1.0));
    let weight = random(11, 10, 2.0);
    for tier in Tier::available() {
        assert_thread_independent("y", || cpu::qk_norm(tier, &x, [&weight, &weight], layout, EPS));
        assert_thread_independent("d", || backward::qk_norm(tier, &x, [&weight, &weight], &dy, layout, EPS));
    }
}

#[test]
fn op_on_tensors_gives_value_and_gradient() {
    let layout = layout(4, 2, 16);
    let (t, width) = (5, layout.width());
    let device = Device::flex().autodiff();
    let rows = |x: &[f32]| Tensor::<2>::from_data(TensorData::new(x.to_vec(), [t, width]), &device);
    let weight = |x: &[f32]| Tensor::<1>::from_data(TensorData::new(x.to_vec(), [16]), &device);
    let (x, dy) = (random(12, t * width, 1.0), random(13, t * width, 1.0));
    let (q, k) = (random(14, 16, 2.0), random(15, 16, 2.0));
    let qkv = rows(&x).require_grad();
    let y = qk_norm(qkv.clone(), layout, weight(&q), weight(&k), EPS);
    let grads = (y.clone() * rows(&dy)).sum().backward();
    let (x, dy, q, k) = (wide(&x), wide(&dy), wide(&q), wide(&k));
    let y = y.into_data().try_to_vec::<f32>().unwrap();
    assert_close("y", &y, &reference::qk_norm(&x, [&q, &k], layout, f64::from(EPS)), TOLERANCE);
    let d = qkv.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap();
    let expected = reference::qk_norm_backward(&x, [&q, &k], &dy, layout, f64::from(EPS));
    assert_close("dqkv", &d, &expected, TOLERANCE);
}
