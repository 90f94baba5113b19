//! Gated activation of SmolLM2-135M: 2048 tokens, gate and up of 1536. Bytes are what must be read and written
//! once.

use burn::tensor::{Device, Tensor, TensorData};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use seedcorn_kernels::gated_act::{GatedKind, gated_act};

const TOKENS: usize = 2048;
const WIDTH: usize = 1536;
const HALF_BYTES: usize = TOKENS * WIDTH * 4;
const KINDS: [GatedKind; 2] = [GatedKind::SwiGlu, GatedKind::GeGlu];

fn main() {
    divan::main();
}

fn input(device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..TOKENS * 2 * WIDTH).map(|i| 3.0 * (i as f32 * 0.37).sin()).collect();
    Tensor::from_data(TensorData::new(values, [TOKENS, 2 * WIDTH]), device)
}

#[divan::bench(args = KINDS)]
fn forward(bencher: Bencher<'_, '_>, kind: GatedKind) {
    let gate_up = input(&Device::flex());
    bencher
        .counter(BytesCount::new(3 * HALF_BYTES))
        .bench_local(|| black_box(gated_act(gate_up.clone(), kind)));
}

/// Also reads gate, up and `dy` and writes two gradients; the sum that starts the backward pass is part of the
/// time.
#[divan::bench(args = KINDS)]
fn forward_and_backward(bencher: Bencher<'_, '_>, kind: GatedKind) {
    let gate_up = input(&Device::flex().autodiff()).require_grad();
    bencher.counter(BytesCount::new(8 * HALF_BYTES)).bench_local(|| {
        black_box(gated_act(gate_up.clone(), kind).sum().backward());
    });
}
