//! The linear layers of SmolLM2-135M over 2048 tokens, rank 16.
//!
//! Prints CPU time and GFLOP/s of CPU time, forward and backward, the adapter's share counted: the least and the
//! median of alternated runs. A word on the command line chooses the layers whose name has it; `SEEDCORN_ISA`
//! chooses the tier, `RAYON_NUM_THREADS` the threads.

#![expect(clippy::print_stdout, reason = "a bench prints its results")]

use std::hint::black_box;

use burn::tensor::{Device, Tensor, TensorData};
use half::bf16;
use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage};
use seedcorn_kernels::isa;
use seedcorn_kernels::lora_linear::{Factors, Part, lora_linear};
use seedcorn_kernels::nf4;
use seedcorn_kernels::seed_gradient::seed_gradient;

const TOKENS: usize = 2048;
const RANK: usize = 16;

const RUNS: usize = 15;

fn main() {
    seedcorn_kernels::heap::keep_freed();
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    println!("tier {}, {TOKENS} tokens, {RUNS} runs", isa::tier().name());
    println!("layer                     forward ms  GFLOP/s (median)   backward ms  GFLOP/s (median)");
    let mut cases: Vec<_> = cases().map(Case::new).filter(|case| case.name.contains(&wanted)).collect();
    for _ in 0..RUNS {
        cases.iter_mut().for_each(Case::run);
    }
    cases.iter_mut().for_each(Case::print);
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

/// One group of layers with its measured times.
struct Case {
    name: String,
    x: Tensor<2>,
    dy: Tensor<2>,
    parts: Vec<Part>,
    /// FLOPs of the frozen and of the low-rank products, forward.
    flops: [usize; 2],
    forward: Vec<f64>,
    backward: Vec<f64>,
}

impl Case {
    fn new((kind, layer): (usize, usize)) -> Self {
        let (name, width, outs) = LAYERS[layer];
        let device = Device::flex().autodiff();
        let part = |&out: &usize| Part {
            weight: weight(kind, [out, width]),
            bias: None,
            factors: Some(Factors {
                a: tensor([RANK, width], &device).require_grad(),
                b: tensor([out, RANK], &device).require_grad(),
                scale: 2.0,
                dropout: None,
            }),
        };
        Self {
            name: format!("{}: {name}", KINDS[kind]),
            x: tensor([TOKENS, width], &device).require_grad(),
            dy: tensor([TOKENS, outs.iter().sum()], &device.clone().inner()),
            parts: outs.iter().map(part).collect(),
            flops: [
                outs.iter().map(|out| 2 * TOKENS * width * out).sum(),
                outs.iter().map(|out| 2 * TOKENS * RANK * (width + out)).sum(),
            ],
            forward: Vec::new(),
            backward: Vec::new(),
        }
    }

    fn run(&mut self) {
        let start = cpu_seconds();
        let y = lora_linear(self.x.clone(), &self.parts, None);
        let middle = cpu_seconds();
        black_box(seed_gradient(y, self.dy.clone()).backward());
        let end = cpu_seconds();
        self.forward.push(middle - start);
        self.backward.push(end - middle);
    }

    fn print(&mut self) {
        let [frozen, low] = self.flops.map(|flops| flops as f64);
        let times = [(&mut self.forward, frozen + low), (&mut self.backward, frozen + 2.0 * low)];
        let [forward, backward] = times.map(|(times, flops)| {
            times.sort_by(f64::total_cmp);
            let [least, median] = [times[0], times[times.len() / 2]];
            let rate = |seconds: f64| flops / seconds / 1e9;
            format!("{:11.2}  {:7.0} ({:6.0})", least * 1e3, rate(least), rate(median))
        });
        println!("{:24} {forward}   {backward}", self.name);
    }
}

/// CPU seconds of this process so far, of all threads.
#[expect(unsafe_code, reason = "a system call")]
fn cpu_seconds() -> f64 {
    // SAFETY: the call fills the structure, which has no invalid values.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
