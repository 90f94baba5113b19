//! A run that is killed at any moment, however often, ends with the bits of one that was not.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use seedcorn_tests::scratch::{Random, Scratch, samples};

/// Kills at most; then the run may end.
const KILLS: usize = 8;

fn start(scratch: &Scratch, output: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_seedcorn-under-test"))
        .args(["train", "--quiet", "--offline", "--resume", "--set"])
        .arg(format!("output={}", scratch.path(output).display()))
        .args(["--set", "checkpoint.every_steps=1", "--set", "train.steps=25"])
        .args(["--set", "adapter.dropout=0.1", "--set", "data.packing=true"])
        .arg(scratch.path("recipe.toml"))
        .stdin(Stdio::null())
        .spawn()
        .expect("started")
}

#[test]
fn at_random_moments() {
    let scratch = Scratch::new("llama", &samples(40, 20..100, 23));
    let started = Instant::now();
    assert!(start(&scratch, "whole").wait().expect("waited").success());
    let whole = started.elapsed();

    let mut random = Random(24);
    let mut killed = 0;
    for _ in 0..KILLS {
        let mut child = start(&scratch, "killed");
        // Later than the whole run takes would kill nothing.
        let delay = whole.mul_f64(random.below(1000) as f64 / 1000.0 * 0.5);
        std::thread::sleep(delay.max(Duration::from_millis(1)));
        child.kill().expect("killed, or done");
        killed += usize::from(!child.wait().expect("waited").success());
    }
    assert!(killed >= 3, "only {killed} of {KILLS} kills came before the end");
    assert!(start(&scratch, "killed").wait().expect("waited").success());
    assert!(scratch.result("killed") == scratch.result("whole"), "after {killed} kills");
    println!("{killed} kills of a run of {whole:?}");
}
