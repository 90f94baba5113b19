//! Rotation of SmolLM2-135M's queries and keys: 2048 tokens, 9 + 3 heads of 64 in rows of 960 with the values.
//! Bytes are what must be read and written once.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use seedcorn_kernels::attention::QkvLayout;
use seedcorn_kernels::rope::{RopeTable, rope, rope_in_place};

const TOKENS: usize = 2048;
const LAYOUT: QkvLayout = QkvLayout { num_heads: 9, num_kv_heads: 3, head_dim: 64 };
/// Queries and keys; values only where the rows are copied.
const ROTATED_BYTES: usize = TOKENS * 12 * 64 * 4;

fn main() {
    divan::main();
}

fn values() -> Vec<f32> {
    (0..TOKENS * LAYOUT.width()).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn positions() -> Arc<[u32]> {
    (0..TOKENS as u32).map(|t| t % 512).collect()
}

fn table() -> RopeTable {
    let inv_freq = (0..32).map(|i| 100_000f32.powf(-(i as f32) / 32.0)).collect();
    RopeTable { inv_freq, attention_scaling: 1.0 }
}

#[divan::bench]
fn in_place(bencher: Bencher<'_, '_>) {
    let (mut qkv, positions, table) = (values(), positions(), table());
    bencher
        .counter(BytesCount::new(2 * ROTATED_BYTES))
        .bench_local(|| rope_in_place(black_box(&mut qkv), LAYOUT, &positions, &table));
}

#[divan::bench]
fn forward(bencher: Bencher<'_, '_>) {
    let (positions, table) = (positions(), table());
    let qkv = TensorData::new(values(), [TOKENS, LAYOUT.width()]);
    let qkv = Tensor::<2>::from_data(qkv, &Device::flex());
    bencher
        .counter(BytesCount::new(2 * TOKENS * LAYOUT.width() * 4))
        .bench_local(|| black_box(rope(qkv.clone(), LAYOUT, positions.clone(), table.clone())));
}
