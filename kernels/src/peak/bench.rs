//! Measures what this machine can do: `cargo bench --bench peak [-- --json]`.
//!
//! Prints GFLOP/s of each tier and GB/s of memory, on one thread and on all. Every figure is the best of many
//! short samples, since whatever else runs on the machine can only make a sample slower.

#![expect(clippy::print_stdout, reason = "printing is what a bench is for")]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use seedcorn_kernels::isa::{self, Tier};
use seedcorn_kernels::peak::{MAX_TURNS, multiply_add, read};

const MIB: usize = 1 << 20;
/// Fits the second cache of any core that this is worth running on.
const L2_BYTES: usize = MIB / 2;
/// Beyond any cache, for all threads together.
const DRAM_BYTES: usize = 1024 * MIB;
const SAMPLES: usize = 400;
const DRAM_SAMPLES: usize = 6;

/// One measured figure.
struct Peak {
    what: String,
    unit: &'static str,
    one_thread: f64,
    all_threads: f64,
}

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let peaks: Vec<Peak> = products(threads).into_iter().chain(memory(threads)).collect();
    if std::env::args().any(|arg| arg == "--json") {
        let rows: Vec<serde_json::Value> = peaks.iter().map(json).collect();
        println!("{}", serde_json::json!({ "threads": threads, "peaks": rows }));
    } else {
        println!("{:<24} {:>12} {:>8} threads", "", "1 thread", threads);
        for Peak { what, unit, one_thread, all_threads } in peaks {
            println!("{what:<24} {one_thread:>12.1} {all_threads:>8.1} {unit}");
        }
    }
}

fn json(peak: &Peak) -> serde_json::Value {
    let Peak { what, unit, one_thread, all_threads } = peak;
    serde_json::json!({ "what": what, "unit": unit, "one_thread": one_thread, "all_threads": all_threads })
}

fn products(threads: usize) -> Vec<Peak> {
    let tiers = Tier::available().into_iter().filter(|&tier| multiply_add(tier, 0).is_some());
    let gflops = |tier: Tier, threads| {
        best(threads, SAMPLES, |_| (), |()| multiply_add(tier, MAX_TURNS / 2).unwrap_or(0)) / 1e9
    };
    let peak = |tier: Tier| {
        let kind = if tier == Tier::Amx { "bf16 tiles" } else { "f32 FMA" };
        Peak {
            what: format!("{} {kind}", tier.name()),
            unit: "GFLOP/s",
            one_thread: gflops(tier, 1),
            all_threads: gflops(tier, threads),
        }
    };
    tiers.map(peak).collect()
}

fn memory(threads: usize) -> Vec<Peak> {
    let sizes = [
        ("L2", L2_BYTES, 64, SAMPLES, [1, 1]),
        // All threads share what one thread goes over alone.
        ("DRAM", DRAM_BYTES, 1, DRAM_SAMPLES, [1, threads]),
    ];
    let mut peaks = Vec::new();
    for (place, bytes, passes, samples, shares) in sizes {
        let reading = |threads, share| read_rate(threads, bytes / share, passes, samples) / 1e9;
        let copying = |threads, share| copy_rate(threads, bytes / 2 / share, passes, samples) / 1e9;
        peaks.push(Peak {
            what: format!("read {place}"),
            unit: "GB/s",
            one_thread: reading(1, shares[0]),
            all_threads: reading(threads, shares[1]),
        });
        peaks.push(Peak {
            what: format!("copy {place} (both ways)"),
            unit: "GB/s",
            one_thread: copying(1, shares[0]),
            all_threads: copying(threads, shares[1]),
        });
    }
    peaks
}

/// Bytes a second that `threads` threads read, each from its own `bytes`.
fn read_rate(threads: usize, bytes: usize, passes: usize, samples: usize) -> f64 {
    let pass = |data: &mut Vec<u64>| {
        for _ in 0..passes {
            black_box(read(isa::tier(), black_box(data)));
        }
        (passes * bytes) as u64
    };
    best(threads, samples, |thread| vec![thread as u64 + 1; bytes / 8], pass)
}

/// Bytes a second that `threads` threads read and write, each between two blocks of `bytes`.
fn copy_rate(threads: usize, bytes: usize, passes: usize, samples: usize) -> f64 {
    let blocks = |thread: usize| (vec![thread as u64 + 1; bytes / 8], vec![u64::MAX; bytes / 8]);
    let pass = |(from, to): &mut (Vec<u64>, Vec<u64>)| {
        for _ in 0..passes {
            to.copy_from_slice(black_box(from));
            black_box(&to);
        }
        (2 * passes * bytes) as u64
    };
    best(threads, samples, blocks, pass)
}

/// Runs `work` on every thread at once, each on its own `state`, and returns the best sum of work over time.
///
/// `work` returns how much it did. The first sample warms up and does not count.
fn best<S>(
    threads: usize,
    samples: usize,
    state: impl Fn(usize) -> S + Sync,
    work: impl Fn(&mut S) -> u64 + Sync,
) -> f64 {
    let barrier = Barrier::new(threads);
    let run = |thread: usize| -> Vec<(u64, Duration)> {
        let mut state = state(thread);
        let sample = |_| {
            barrier.wait();
            let started = Instant::now();
            let done = work(&mut state);
            (done, started.elapsed())
        };
        (0..=samples).map(sample).collect()
    };
    let runs: Vec<Vec<(u64, Duration)>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        handles.into_iter().map(|handle| handle.join().expect("a sample does not panic")).collect()
    });
    let rate = |sample: usize| {
        let done: u64 = runs.iter().map(|run| run[sample].0).sum();
        let time = runs.iter().map(|run| run[sample].1).max().unwrap_or_default();
        done as f64 / time.as_secs_f64()
    };
    (1..=samples).map(rate).fold(0.0, f64::max)
}
