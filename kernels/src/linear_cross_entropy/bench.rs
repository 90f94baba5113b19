//! Head and loss of SmolLM2-135M: 2048 tokens of 576 against 49152 rows. Items are FLOPs: 2 for each weight and
//! token forward, 2 more for the gradient.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use half::bf16;
use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage};
use seedcorn_kernels::linear_cross_entropy::linear_cross_entropy;

const TOKENS: usize = 2048;
const HIDDEN: usize = 576;
const VOCAB: usize = 49_152;
const PRODUCT_FLOPS: usize = 2 * TOKENS * HIDDEN * VOCAB;

fn main() {
    divan::main();
}

fn hidden(device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..TOKENS * HIDDEN).map(|i| (i as f32 * 0.37).sin()).collect();
    Tensor::from_data(TensorData::new(values, [TOKENS, HIDDEN]), device)
}

fn head(compute: Compute) -> FrozenWeight {
    let value = |i: usize| 0.05 * (i as f32 * 0.11).cos();
    let storage = match compute {
        Compute::F32 => Storage::F32((0..VOCAB * HIDDEN).map(value).collect()),
        Compute::Bf16 => Storage::Bf16((0..VOCAB * HIDDEN).map(|i| bf16::from_f32(value(i))).collect()),
    };
    FrozenWeight::new(storage, [VOCAB, HIDDEN], compute)
}

fn targets() -> Arc<[i32]> {
    (0..TOKENS).map(|t| (t * 7919 % VOCAB) as i32).collect()
}

#[divan::bench(args = [Compute::Bf16, Compute::F32], sample_count = 5, sample_size = 1)]
fn forward(bencher: Bencher<'_, '_>, compute: Compute) {
    let (h, head, targets) = (hidden(&Device::flex()), head(compute), targets());
    bencher
        .counter(ItemsCount::new(PRODUCT_FLOPS))
        .bench_local(|| black_box(linear_cross_entropy(h.clone(), &head, targets.clone())));
}

#[divan::bench(args = [Compute::Bf16, Compute::F32], sample_count = 5, sample_size = 1)]
fn forward_and_backward(bencher: Bencher<'_, '_>, compute: Compute) {
    let (h, head, targets) = (hidden(&Device::flex().autodiff()).require_grad(), head(compute), targets());
    bencher.counter(ItemsCount::new(2 * PRODUCT_FLOPS)).bench_local(|| {
        black_box(linear_cross_entropy(h.clone(), &head, targets.clone()).backward());
    });
}
