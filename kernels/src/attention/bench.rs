//! Attention of SmolLM2-135M's shape: 2048 tokens, 9 query heads over 3 key heads of 64.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use divan::{Bencher, black_box};
use seedcorn_kernels::attention::{AttentionConfig, QkvLayout, attention};
use seedcorn_kernels::frozen::Compute;

const TOKENS: usize = 2048;
const LAYOUT: QkvLayout = QkvLayout { num_heads: 9, num_kv_heads: 3, head_dim: 64 };
const CFG: AttentionConfig =
    AttentionConfig { scale: 0.125, window: None, soft_cap: None, compute: Compute::Bf16 };

fn main() {
    divan::main();
}

fn input(device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..TOKENS * LAYOUT.width()).map(|i| (i as f32 * 0.37).sin()).collect();
    Tensor::from_data(TensorData::new(values, [TOKENS, LAYOUT.width()]), device)
}

fn segments(count: usize) -> Arc<[u32]> {
    (0..=count).map(|i| (i * TOKENS / count) as u32).collect()
}

#[divan::bench(args = [1, 4, 32], sample_count = 20)]
fn forward(bencher: Bencher<'_, '_>, count: usize) {
    let (qkv, segments) = (input(&Device::flex()), segments(count));
    bencher.bench_local(|| black_box(attention(qkv.clone(), LAYOUT, segments.clone(), CFG)));
}

#[divan::bench(args = [1, 4, 32], sample_count = 20)]
fn forward_and_backward(bencher: Bencher<'_, '_>, count: usize) {
    let (qkv, segments) = (input(&Device::flex().autodiff()).require_grad(), segments(count));
    bencher.bench_local(|| {
        let out = attention(qkv.clone(), LAYOUT, segments.clone(), CFG);
        black_box(out.sum().backward());
    });
}
