//! Normalisation of SmolLM2-135M's rows: 2048 tokens of 576. Bytes are what must be read and written once.

use burn::tensor::{Device, Tensor, TensorData};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use seedcorn_kernels::rms_norm::rms_norm;
use seedcorn_kernels::seed_gradient::seed_gradient;

const TOKENS: usize = 2048;
const HIDDEN: usize = 576;
const ROWS_BYTES: usize = TOKENS * HIDDEN * 4;

fn main() {
    divan::main();
}

fn input(device: &Device) -> (Tensor<2>, Tensor<1>) {
    let values: Vec<f32> = (0..TOKENS * HIDDEN).map(|i| (i as f32 * 0.37).sin()).collect();
    let weight: Vec<f32> = (0..HIDDEN).map(|i| 1.0 + (i as f32 * 0.11).cos()).collect();
    let x = Tensor::from_data(TensorData::new(values, [TOKENS, HIDDEN]), device);
    (x, Tensor::from_data(TensorData::new(weight, [HIDDEN]), device))
}

#[divan::bench]
fn forward(bencher: Bencher<'_, '_>) {
    let (x, weight) = input(&Device::flex());
    bencher
        .counter(BytesCount::new(2 * ROWS_BYTES))
        .bench_local(|| black_box(rms_norm(x.clone(), weight.clone(), 1e-5)));
}

/// Also reads `x` and `dy` and writes `dx`.
#[divan::bench]
fn forward_and_backward(bencher: Bencher<'_, '_>) {
    let (x, weight) = input(&Device::flex().autodiff());
    let (x, (dy, _)) = (x.require_grad(), input(&Device::flex()));
    bencher.counter(BytesCount::new(5 * ROWS_BYTES)).bench_local(|| {
        let y = rms_norm(x.clone(), weight.clone(), 1e-5);
        black_box(seed_gradient(y, dy.clone()).backward());
    });
}
