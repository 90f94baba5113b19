//! The same recipe gives the same bits: again, on any number of threads, with activations kept or computed
//! again, and after any stop.

use seedcorn_tests::scratch::{Scratch, samples};

/// Runs that use every source of chance: order, packs, dropout, and a quantized base.
const VARIANTS: [(&str, &[&str]); 5] = [
    ("llama", &[]),
    ("qwen3", &["data.packing=true", "adapter.dropout=0.1", "model.quantize=nf4"]),
    ("mistral-swa", &["adapter.dropout=0.2", "model.quantize=int8", "model.compute=bf16"]),
    // Wide enough for the kernels of the matrix unit, without and with what sends them past the fused ones.
    ("wide", &["data.packing=true", "model.quantize=nf4", "model.compute=bf16"]),
    ("wide", &["adapter.dropout=0.1", "model.compute=bf16"]),
];

fn with<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [first, more].concat()
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs_err::create_dir_all(to).expect("created");
    for entry in fs_err::read_dir(from).expect("listed") {
        let entry = entry.expect("listed").path();
        let target = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            fs_err::copy(&entry, &target).expect("copied");
        }
    }
}

#[test]
fn threads_reruns_and_activations() {
    for (model, variant) in VARIANTS {
        let scratch = Scratch::new(model, &samples(20, 40..120, 12));
        let run = |output: &str, threads: usize, more: &[&str]| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| scratch.train(output, &with(variant, more))).expect("a finished run");
            scratch.result(output)
        };
        let first = run("first", 1, &[]);
        assert_eq!(first.1.len(), 4);
        assert!(run("again", 1, &[]) == first, "{model}: another run");
        assert!(run("two", 2, &[]) == first, "{model}: 2 threads");
        assert!(run("three", 3, &[]) == first, "{model}: 3 threads");
        assert!(run("keep", 2, &["train.activation=keep"]) == first, "{model}: activations kept");
        // What is kept of some blocks only, and what the machine has room for.
        for (output, budget) in [("some", "train.memory_budget=1 MB"), ("free", "train.memory_budget=1 TiB")]
        {
            let found = run(output, 2, &["train.activation=auto", budget]);
            assert!(found == first, "{model}: activations within a budget ({budget})");
        }
        assert!(run("auto", 1, &["train.activation=auto"]) == first, "{model}: within free memory");
        assert!(run("seed", 1, &["train.seed=4"]) != first, "{model}: another seed");
    }
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    for (model, variant) in VARIANTS {
        // Held-out samples, so that evaluations and the best loss are part of the state. Five epochs, so that
        // stops fall into different ones.
        let scratch = Scratch::new(model, &samples(14, 5..30, 13));
        let more = [
            "train.batch_size=4",
            "train.steps=9",
            "data.eval_count=3",
            "eval.every_steps=2",
            "schedule.warmup_steps=3",
            "checkpoint.every_steps=1",
            "checkpoint.keep=100",
        ];
        let overrides = with(variant, &more);
        scratch.train("whole", &overrides).expect("a finished run");
        let whole = scratch.result("whole");
        assert_eq!(scratch.steps("whole", "eval_loss").len(), 1 + 4 + 1);
        for stop in [1, 4, 8] {
            let output = format!("stopped-{stop}");
            copy(&scratch.path("whole"), &scratch.path(&output));
            // As a kill after the step's checkpoint leaves it: later rows of the metrics may be there.
            fs_err::remove_dir_all(scratch.path(&output).join("adapter")).expect("removed");
            for later in stop + 1..=9 {
                let folder = format!("checkpoints/step-{later:06}");
                fs_err::remove_dir_all(scratch.path(&output).join(folder)).expect("removed");
            }
            let finished = scratch.resume(&output, &overrides).expect("a finished run");
            assert_eq!(finished.steps, 9);
            assert!(finished.first_eval.is_none(), "it started again");
            assert!(scratch.result(&output) == whole, "{model}: resumed after step {stop}");
        }
    }
}

/// What is kept changes no bit, so a run may go on with less than it started with.
#[test]
fn a_run_can_be_resumed_with_other_activations() {
    let scratch = Scratch::new("llama", &samples(16, 5..30, 15));
    let more = ["checkpoint.every_steps=2", "checkpoint.keep=100"];
    scratch.train("whole", &with(&more, &["train.activation=keep"])).expect("a finished run");
    copy(&scratch.path("whole"), &scratch.path("stopped"));
    fs_err::remove_dir_all(scratch.path("stopped/adapter")).expect("removed");
    fs_err::remove_dir_all(scratch.path("stopped/checkpoints/step-000004")).expect("removed");
    let auto = ["train.activation=auto", "train.memory_budget=100 KB"];
    scratch.resume("stopped", &with(&more, &auto)).expect("a finished run");
    assert!(scratch.result("stopped") == scratch.result("whole"));
}

#[test]
fn dropout_is_part_of_the_result() {
    let scratch = Scratch::new("llama", &samples(16, 5..30, 14));
    let run = |output: &str, overrides: &[&str]| {
        scratch.train(output, overrides).expect("a finished run");
        scratch.result(output).1
    };
    let none = run("none", &[]);
    assert!(run("zero", &["adapter.dropout=0.0"]) == none);
    assert!(run("little", &["adapter.dropout=0.001"]) != none);
}
