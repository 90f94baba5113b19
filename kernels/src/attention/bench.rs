//! Attention of SmolLM2-135M's shape, one layer: 2048 tokens, 9 query heads over 3 key heads of 64.
//!
//! Prints CPU time, which holds on a machine that others use too, as the median of alternated runs, and
//! GFLOP/s of CPU time, counting the scores that the causal mask leaves: 4 `head_dim` FLOPs each forward,
//! 10 backward. `SEEDCORN_ISA` chooses the tier, `RAYON_NUM_THREADS` the threads.

#![expect(clippy::print_stdout, reason = "a bench prints its results")]

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::TensorData;
use burn_flex::FlexTensor;
use seedcorn_kernels::attention::{AttentionBackend, AttentionConfig, QkvLayout};
use seedcorn_kernels::frozen::Compute;
use seedcorn_kernels::isa;

const TOKENS: usize = 2048;
const LAYOUT: QkvLayout = QkvLayout { num_heads: 9, num_kv_heads: 3, head_dim: 64 };
const RUNS: usize = 31;

fn main() {
    println!("tier {}, {TOKENS} tokens in segments, median of {RUNS} runs", isa::tier().name());
    println!("compute  segments   forward ms  GFLOP/s   backward ms  GFLOP/s");
    let mut cases: Vec<_> = [Compute::F32, Compute::Bf16]
        .into_iter()
        .flat_map(|compute| [4, 1].map(|segments| Case::new(compute, segments)))
        .collect();
    for _ in 0..RUNS {
        cases.iter_mut().for_each(Case::run);
    }
    cases.iter_mut().for_each(Case::print);
}

/// One shape with its measured times.
struct Case {
    segments: Arc<[u32]>,
    cfg: AttentionConfig,
    qkv: FlexTensor,
    d_out: FlexTensor,
    forward: Vec<f64>,
    backward: Vec<f64>,
}

impl Case {
    fn new(compute: Compute, segments: usize) -> Self {
        Self {
            segments: (0..=segments).map(|i| (i * TOKENS / segments) as u32).collect(),
            cfg: AttentionConfig { scale: 0.125, window: None, soft_cap: None, compute },
            qkv: waves(LAYOUT.width()),
            d_out: waves(LAYOUT.q_width()),
            forward: Vec::new(),
            backward: Vec::new(),
        }
    }

    fn run(&mut self) {
        let Self { segments, cfg, qkv, d_out, .. } = &*self;
        let start = cpu_seconds();
        let (out, lse) = Flex::packed_attention_forward(qkv.clone(), LAYOUT, segments.clone(), *cfg);
        let middle = cpu_seconds();
        let d_out = d_out.clone();
        let dqkv =
            Flex::packed_attention_backward(qkv.clone(), out, lse, d_out, LAYOUT, segments.clone(), *cfg);
        let end = cpu_seconds();
        std::hint::black_box(dqkv);
        self.forward.push(middle - start);
        self.backward.push(end - middle);
    }

    fn print(&mut self) {
        let tokens = TOKENS as f64;
        let scores = LAYOUT.num_heads as f64 * tokens * tokens / (self.segments.len() - 1) as f64 / 2.0;
        let [forward, backward] = [&mut self.forward, &mut self.backward].map(|times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        let rate = |flops: f64, seconds: f64| flops * LAYOUT.head_dim as f64 * scores / seconds / 1e9;
        println!(
            "{:7}  {:8}   {:10.2}  {:7.0}   {:11.2}  {:7.0}",
            format!("{:?}", self.cfg.compute),
            self.segments.len() - 1,
            forward * 1e3,
            rate(4.0, forward),
            backward * 1e3,
            rate(10.0, backward)
        );
    }
}

fn waves(width: usize) -> FlexTensor {
    let values: Vec<f32> = (0..TOKENS * width).map(|i| (i as f32 * 0.37).sin()).collect();
    FlexTensor::from_data(TensorData::new(values, [TOKENS, width]))
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
