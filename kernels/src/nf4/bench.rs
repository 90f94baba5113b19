//! A gate projection of SmolLM2-135M in NF4 with double quantization, on one thread and on all. Bytes are the
//! values in f32, written (dequantize) or read (quantize).

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use seedcorn_kernels::nf4::{Nf4, quantize};

const SHAPE: [usize; 2] = [1536, 576];
const VALUES: usize = SHAPE[0] * SHAPE[1];
const BLOCK: usize = 64;

fn main() {
    divan::main();
}

fn values() -> Vec<f32> {
    (0..VALUES).map(|i| 0.05 * (i as f32 * 0.37).sin()).collect()
}

fn weight() -> Nf4 {
    quantize(&values(), SHAPE, BLOCK, true)
}

#[divan::bench]
fn dequantize_one_thread(bencher: Bencher<'_, '_>) {
    let (weight, mut out) = (weight(), vec![0.0; VALUES]);
    let absmax = weight.absmax_f32();
    bencher
        .counter(BytesCount::new(4 * VALUES))
        .bench_local(|| weight.dequantize_range(0, black_box(&mut out), &absmax));
}

#[divan::bench]
fn dequantize_all_threads(bencher: Bencher<'_, '_>) {
    let weight = weight();
    bencher.counter(BytesCount::new(4 * VALUES)).bench_local(|| black_box(weight.dequantize()));
}

#[divan::bench]
fn quantize_all_threads(bencher: Bencher<'_, '_>) {
    let values = values();
    bencher
        .counter(BytesCount::new(4 * VALUES))
        .bench_local(|| black_box(quantize(&values, SHAPE, BLOCK, true)));
}
