//! Gated activation of SmolLM2-135M: 2048 tokens, gate and up of 1536. Bytes are what must be read and written
//! once.

use burn::tensor::{Device, Tensor, TensorData};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use seedcorn_kernels::gated_act::{GatedKind, gated_act};
use seedcorn_kernels::seed_gradient::seed_gradient;

const TOKENS: usize = 2048;
const WIDTH: usize = 1536;
const HALF_BYTES: usize = TOKENS * WIDTH * 4;
const KINDS: [GatedKind; 2] = [GatedKind::SwiGlu, GatedKind::GeGlu];

fn main() {
    divan::main();
}

fn input(width: usize, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..TOKENS * width).map(|i| 3.0 * (i as f32 * 0.37).sin()).collect();
    Tensor::from_data(TensorData::new(values, [TOKENS, width]), device)
}

#[divan::bench(args = KINDS)]
fn forward(bencher: Bencher<'_, '_>, kind: GatedKind) {
    let gate_up = input(2 * WIDTH, &Device::flex());
    bencher
        .counter(BytesCount::new(3 * HALF_BYTES))
        .bench_local(|| black_box(gated_act(gate_up.clone(), kind)));
}

/// Also reads gate, up and `dy` and writes two gradients.
#[divan::bench(args = KINDS)]
fn forward_and_backward(bencher: Bencher<'_, '_>, kind: GatedKind) {
    let gate_up = input(2 * WIDTH, &Device::flex().autodiff()).require_grad();
    let dy = input(WIDTH, &Device::flex());
    bencher.counter(BytesCount::new(8 * HALF_BYTES)).bench_local(|| {
        black_box(seed_gradient(gated_act(gate_up.clone(), kind), dy.clone()).backward());
    });
}
