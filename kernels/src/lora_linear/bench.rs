//! The linear layers of SmolLM2-135M over 2048 tokens, rank 16: items are floating-point operations, so that
//! a rate of `Gitem/s` is GFLOP/s.

use burn::tensor::{Device, Tensor, TensorData};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use half::bf16;
use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage};
use seedcorn_kernels::lora_linear::{Factors, Part, lora_linear};
use seedcorn_kernels::nf4;
use seedcorn_kernels::seed_gradient::seed_gradient;

const TOKENS: usize = 2048;
const RANK: usize = 16;

fn main() {
    divan::main();
}

/// Name, input width, output widths.
const LAYERS: [(&str, usize, &[usize]); 4] = [
    ("q, k, v", 576, &[576, 192, 192]),
    ("o", 576, &[576]),
    ("gate, up", 576, &[1536, 1536]),
    ("down", 1536, &[576]),
];

/// How a weight is kept and multiplied.
const KINDS: [&str; 3] = ["bf16", "nf4 in bf16", "f32"];

fn cases() -> impl Iterator<Item = (usize, usize)> {
    (0..KINDS.len()).flat_map(|kind| (0..LAYERS.len()).map(move |layer| (kind, layer)))
}

fn names() -> impl Iterator<Item = String> {
    cases().map(|(kind, layer)| format!("{}: {}", KINDS[kind], LAYERS[layer].0))
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn tensor(shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values(shape[0] * shape[1]), shape), device)
}

fn weight(kind: usize, shape: [usize; 2]) -> FrozenWeight {
    let values = values(shape[0] * shape[1]);
    let (storage, compute) = match kind {
        0 => (Storage::Bf16(values.into_iter().map(bf16::from_f32).collect()), Compute::Bf16),
        1 => (Storage::Nf4(nf4::quantize(&values, shape, 64, true)), Compute::Bf16),
        _ => (Storage::F32(values), Compute::F32),
    };
    FrozenWeight::new(storage, shape, compute)
}

/// Runs `name` forward, and backward if asked, counting `passes * 2 m k n` and the adapter's share.
fn run(bencher: Bencher<'_, '_>, name: &str, backward: bool) {
    let (kind, layer) =
        cases().zip(names()).find(|(_, other)| other == name).map(|(case, _)| case).expect("a listed name");
    let (_, width, outs) = LAYERS[layer];
    let device = Device::flex().autodiff();
    let x = tensor([TOKENS, width], &device).require_grad();
    let parts: Vec<Part> = outs
        .iter()
        .map(|&out| Part {
            weight: weight(kind, [out, width]),
            bias: None,
            factors: Some(Factors {
                a: tensor([RANK, width], &device).require_grad(),
                b: tensor([out, RANK], &device).require_grad(),
                scale: 2.0,
                dropout: None,
            }),
        })
        .collect();
    let frozen: usize = outs.iter().map(|out| 2 * TOKENS * width * out).sum();
    let low: usize = outs.iter().map(|out| 2 * TOKENS * RANK * (width + out)).sum();
    let flops = if backward { 2 * frozen + 3 * low } else { frozen + low };
    let dy = tensor([TOKENS, outs.iter().sum()], &device.clone().inner());
    bencher.counter(ItemsCount::new(flops)).bench_local(|| {
        let y = lora_linear(x.clone(), &parts, None);
        if backward {
            black_box(seed_gradient(y, dy.clone()).backward());
        } else {
            black_box(y);
        }
    });
}

#[divan::bench(args = names(), sample_count = 20)]
fn forward(bencher: Bencher<'_, '_>, name: &str) {
    run(bencher, name, false);
}

#[divan::bench(args = names(), sample_count = 20)]
fn forward_and_backward(bencher: Bencher<'_, '_>, name: &str) {
    run(bencher, name, true);
}
