//! The feed-forward half of SmolLM2-135M over 2048 tokens in NF4 and bf16, rank 16.
//!
//! Prints CPU time and GFLOP/s of CPU time, forward and backward: the least and the median of alternated runs. What the
//! backward pass computes again is counted, adapters are not. `RAYON_NUM_THREADS` chooses the threads.

#![expect(clippy::print_stdout, reason = "a bench prints its results")]

use std::hint::black_box;

use burn::tensor::{Device, Tensor, TensorData};
use half::bf16;
use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage};
use seedcorn_kernels::gated_act::GatedKind;
use seedcorn_kernels::gated_mlp::gated_mlp;
use seedcorn_kernels::isa;
use seedcorn_kernels::lora_linear::{Factors, Part};
use seedcorn_kernels::nf4;
use seedcorn_kernels::seed_gradient::seed_gradient;

const TOKENS: usize = 2048;
const D: usize = 576;
const F: usize = 1536;
const RANK: usize = 16;
const RUNS: usize = 15;

fn main() {
    seedcorn_kernels::heap::keep_freed();
    println!("tier {}, {TOKENS} tokens, {D} x {F}, {RUNS} runs", isa::tier().name());
    println!("weights                   forward ms  GFLOP/s (median)   backward ms  GFLOP/s (median)");
    let mut cases = [Case::new("bf16", false), Case::new("nf4 in bf16", true)];
    for _ in 0..RUNS {
        cases.iter_mut().for_each(Case::run);
    }
    cases.iter_mut().for_each(Case::print);
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| 0.05 * (i as f32 * 0.37).sin()).collect()
}

fn tensor<const N: usize>(shape: [usize; N], device: &Device) -> Tensor<N> {
    Tensor::from_data(TensorData::new(values(shape.iter().product()), shape), device)
}

struct Case {
    name: &'static str,
    parts: [Part; 3],
    x: Tensor<2>,
    dy: Tensor<2>,
    forward: Vec<f64>,
    backward: Vec<f64>,
}

impl Case {
    fn new(name: &'static str, nf4: bool) -> Self {
        let device = Device::flex().autodiff();
        let parts = [[F, D], [F, D], [D, F]].map(|shape| {
            let values = values(shape[0] * shape[1]);
            let storage = if nf4 {
                Storage::Nf4(nf4::quantize(&values, shape, 64, true))
            } else {
                Storage::Bf16(values.into_iter().map(bf16::from_f32).collect())
            };
            let [a, b] = [[RANK, shape[1]], [shape[0], RANK]];
            let factors = Factors {
                a: tensor(a, &device).require_grad(),
                b: tensor(b, &device).require_grad(),
                scale: 2.0,
                dropout: None,
            };
            Part {
                weight: FrozenWeight::new(storage, shape, Compute::Bf16),
                bias: None,
                factors: Some(factors),
            }
        });
        let x = tensor([TOKENS, D], &device).require_grad();
        let dy = tensor([TOKENS, D], &device.inner());
        Self { name, parts, x, dy, forward: Vec::new(), backward: Vec::new() }
    }

    fn run(&mut self) {
        let norm = tensor([D], &self.x.device());
        let start = cpu_seconds();
        let y = gated_mlp(self.x.clone(), norm, 1e-5, &self.parts, GatedKind::SwiGlu);
        let middle = cpu_seconds();
        black_box(seed_gradient(y, self.dy.clone()).backward());
        let end = cpu_seconds();
        self.forward.push(middle - start);
        self.backward.push(end - middle);
    }

    fn print(&mut self) {
        let flops = (TOKENS * D * F) as f64;
        let [forward, backward] =
            [(&mut self.forward, 6.0), (&mut self.backward, 10.0)].map(|(times, count)| {
                times.sort_by(f64::total_cmp);
                let [least, median] = [times[0], times[times.len() / 2]];
                let rate = |seconds: f64| count * flops / seconds / 1e9;
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
