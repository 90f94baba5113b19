//! A budget of memory decides how many blocks are kept, and what that takes is what was planned.

use std::process::{Command, Stdio};

use seedcorn_tests::scratch::{Scratch, samples};
use seedcorn_tests::wide::LAYERS;

const AUTO: &str = "train.activation=auto";

#[test]
fn a_budget_decides_how_many_blocks_are_kept() {
    let scratch = Scratch::new("wide", &samples(4, 40..41, 16));
    let plan = |overrides: &[&str]| scratch.prepare("plan", overrides).expect("prepared").memory;
    let (none, all) = (plan(&[]), plan(&["train.activation=keep"]));
    // Two samples of 40 tokens at once; an input has 128 floats a token.
    assert_eq!((none.kept_blocks, none.tokens, none.bytes), (0, 80, LAYERS as u64 * 4 * 80 * 128));
    assert_eq!((all.kept_blocks, all.budget), (LAYERS, None));
    let of_one = (all.bytes - none.bytes) / LAYERS as u64;
    for (kept, extra) in
        [(0, of_one - 1), (1, of_one), (1, 2 * of_one - 1), (2, 2 * of_one), (LAYERS, 9 * of_one)]
    {
        let budget = format!("train.memory_budget={}", none.bytes + extra);
        let auto = plan(&[AUTO, &budget]);
        assert_eq!((auto.kept_blocks, auto.bytes), (kept, none.bytes + kept as u64 * of_one));
    }
    // Less than what every run must keep.
    let prepared = scratch.prepare("plan", &[AUTO, "train.memory_budget=1 KB"]).expect("prepared");
    assert_eq!(
        seedcorn::plan::lines(&prepared).last().expect("a plan"),
        "activations: 0 of 6 blocks kept; 246 KB for 80 tokens at once, of a budget of 1.00 KB, which is less \
         than the inputs of the blocks take"
    );
    assert!(plan(&[AUTO]).budget.is_some_and(|budget| budget > 0));
}

/// The peak of a process of its own, since memory that a process has had stays in its peak.
#[test]
fn the_estimate_is_what_is_measured() {
    let scratch = Scratch::new("wide", &samples(64, 127..128, 17));
    for compute in ["model.compute=f32", "model.compute=bf16"] {
        let shape = [compute, "train.batch_size=64", "train.micro_batch=64", "train.steps=1"];
        let plan = |more: &[&str]| {
            let overrides = [&shape, more].concat();
            scratch.prepare("plan", &overrides).expect("prepared").memory
        };
        // One block is in memory as a graph whether it is kept or not, so runs with one and with all are compared.
        let (none, all) = (plan(&[]), plan(&["train.activation=keep"]));
        let one = none.bytes + (all.bytes - none.bytes) / LAYERS as u64;
        let budget = format!("train.memory_budget={one}");
        assert_eq!(plan(&[AUTO, &budget]).kept_blocks, 1);
        let peak = |output: &str, more: &[&str]| {
            let output = format!("{output}-{}", compute.len());
            let folder = format!("output={}", scratch.path(&output).display());
            let status = Command::new(env!("CARGO_BIN_EXE_seedcorn-under-test"))
                .args(["train", "--quiet", "--offline"])
                .args([&shape, more, &[&folder]].concat().iter().flat_map(|text| ["--set", text]))
                .arg(scratch.path("recipe.toml"))
                .stdin(Stdio::null())
                .status();
            assert!(status.expect("started").success());
            scratch.measured(&output, "peak_memory_bytes")
        };
        let expected = (all.bytes - one) as f64;
        let found = peak("all", &["train.activation=keep"]) - peak("one", &[AUTO, &budget]);
        let relative = found / expected - 1.0;
        assert!(relative.abs() < 0.15, "{compute}: {found} bytes, expected {expected}");
    }
}
