//! What the tests of all ops share.

use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use seedcorn_kernels::seed_gradient::seed_gradient;

/// A test's name and body.
pub(crate) type Test = (&'static str, fn(&Device));

/// Draws `n` values, uniform in `-scale..scale`.
pub(crate) fn random(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-1.0f32..1.0) * scale).collect()
}

/// Widens to f64, for the references.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// A tensor of values on a device.
pub(crate) fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// The values of a tensor.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}

/// Fails unless `|got - expected| <= tolerance * max(1, largest |expected|)` everywhere; returns the largest error on
/// that scale.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) -> f64 {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
    let mut worst = 0.0f64;
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - expected).abs() / scale;
        assert!(
            error <= tolerance,
            "{what}: element {i} is {got} beside {expected}: {error:e} > {tolerance:e}"
        );
        worst = worst.max(error);
    }
    worst
}

/// Runs an op of one tracked input on the device: its output, and the gradient for `dy`.
pub(crate) fn with_gradient(
    x: &[f32],
    shape: [usize; 2],
    dy: &[f32],
    device: &Device,
    op: impl Fn(Tensor<2>) -> Tensor<2>,
) -> (Vec<f32>, Vec<f32>) {
    let x = tensor(x, shape, device).autodiff().require_grad();
    let y = op(x.clone());
    let out = values(y.clone().inner());
    let dy = tensor(dy, y.dims(), device);
    let mut grads = seed_gradient(y, dy).backward();
    (out, values(x.grad_remove(&mut grads).expect("x is tracked")))
}
