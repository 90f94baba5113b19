//! The loss of SmolLM2-135M's head (49152 x 576) in GFLOP/s: two products forward, four with the gradient.
//!
//! `RAYON_NUM_THREADS` sets the threads, `SEEDCORN_ISA` the tier.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use half::bf16;
use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage};
use seedcorn_kernels::linear_cross_entropy::linear_cross_entropy;
use seedcorn_kernels::{int8, nf4};

const HIDDEN: usize = 576;
const VOCAB: usize = 49152;
const TOKENS: [usize; 3] = [64, 512, 2048];
const HEADS: [&str; 4] = ["bf16", "nf4", "int8", "f32"];

fn main() {
    divan::main();
}

fn values(count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|i| (i % 8191) as f32 / 4095.5 - 1.0).map(|x| x * scale).collect()
}

/// A head by name; `f32` also computes in f32, the others in bf16.
fn head(name: &str) -> FrozenWeight {
    let (w, shape) = (values(VOCAB * HIDDEN, 0.1), [VOCAB, HIDDEN]);
    let (storage, compute) = match name {
        "bf16" => (Storage::Bf16(w.into_iter().map(bf16::from_f32).collect()), Compute::Bf16),
        "nf4" => (Storage::Nf4(nf4::quantize(&w, shape, 64, true)), Compute::Bf16),
        "int8" => (Storage::Int8(int8::quantize(&w, shape)), Compute::Bf16),
        _ => (Storage::F32(w), Compute::F32),
    };
    FrozenWeight::new(storage, shape, compute)
}

fn inputs(device: &Device, tokens: usize) -> (Tensor<2>, Arc<[i32]>) {
    let h = TensorData::new(values(tokens * HIDDEN, 1.0), [tokens, HIDDEN]);
    (Tensor::from_data(h, device), (0..tokens).map(|i| (i * 7919 % VOCAB) as i32).collect())
}

/// Items are floating-point operations, so that `Gitem/s` reads as GFLOP/s.
fn flops(tokens: usize, products: usize) -> ItemsCount {
    ItemsCount::new(2 * products * tokens * HIDDEN * VOCAB)
}

#[divan::bench(args = TOKENS, consts = [0, 1, 2, 3], sample_count = 10, sample_size = 1)]
fn loss<const HEAD: usize>(bencher: Bencher<'_, '_>, tokens: usize) {
    let (head, (h, targets)) = (head(HEADS[HEAD]), inputs(&Device::flex(), tokens));
    bencher
        .counter(flops(tokens, 1))
        .bench_local(|| black_box(linear_cross_entropy(h.clone(), &head, targets.clone())));
}

#[divan::bench(args = TOKENS, consts = [0, 1, 2, 3], sample_count = 10, sample_size = 1)]
fn loss_and_gradient<const HEAD: usize>(bencher: Bencher<'_, '_>, tokens: usize) {
    let (head, (h, targets)) = (head(HEADS[HEAD]), inputs(&Device::flex().autodiff(), tokens));
    let h = h.require_grad();
    bencher
        .counter(flops(tokens, 2))
        .bench_local(|| black_box(linear_cross_entropy(h.clone(), &head, targets.clone()).backward()));
}
