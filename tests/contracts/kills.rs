//! A run that is killed at any moment, however often, ends with the bits of one that was not.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use seedcorn_tests::scratch::{Random, Scratch, samples};

/// Kills of a run.
const KILLS: u64 = 9;
/// Steps of the run: more than the kills let pass.
const STEPS: u64 = 30;
/// How long a step may take before the test gives up, seconds.
const PATIENCE: u64 = 60;

fn start(scratch: &Scratch, output: &str, save_every: u64) -> Child {
    Command::new(env!("CARGO_BIN_EXE_seedcorn-under-test"))
        .args(["train", "--quiet", "--offline", "--resume", "--set"])
        .arg(format!("output={}", scratch.path(output).display()))
        .args(["--set", &format!("checkpoint.every_steps={save_every}")])
        .args(["--set", &format!("train.steps={STEPS}")])
        .args(["--set", "adapter.dropout=0.1", "--set", "data.packing=true"])
        .arg(scratch.path("recipe.toml"))
        .stdin(Stdio::null())
        .spawn()
        .expect("started")
}

/// Returns the step of the newest checkpoint; 0 when there is none.
fn newest(scratch: &Scratch, output: &str) -> u64 {
    let Ok(entries) = fs_err::read_dir(scratch.path(output).join("checkpoints")) else { return 0 };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max().unwrap_or(0)
}

/// Waits until the run has saved a state of `step` or later.
fn wait_for(scratch: &Scratch, child: &mut Child, step: u64) {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE);
    while newest(scratch, "killed") < step {
        assert!(child.try_wait().expect("waited").is_none(), "the run ended before step {step}");
        assert!(Instant::now() < deadline, "no checkpoint of step {step}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn at_random_moments() {
    let scratch = Scratch::new("llama", &samples(40, 10..40, 23));
    assert!(start(&scratch, "whole", 0).wait().expect("waited").success());

    let mut random = Random(24);
    for kill in 0..KILLS {
        let mut child = start(&scratch, "killed", 1);
        // Every third kill comes while the run starts, the others some steps later: in the middle of a step
        // or of saving.
        if kill % 3 > 0 {
            let target = newest(&scratch, "killed") + 1 + random.below(3);
            wait_for(&scratch, &mut child, target);
        }
        std::thread::sleep(Duration::from_micros(random.below(40_000)));
        child.kill().expect("killed");
        let status = child.wait().expect("waited");
        assert!(!status.success(), "kill {kill} came too late");
    }
    let reached = newest(&scratch, "killed");
    assert!((KILLS / 3 * 2..STEPS).contains(&reached), "{reached}");
    assert!(start(&scratch, "killed", 1).wait().expect("waited").success());
    assert!(scratch.result("killed") == scratch.result("whole"));
}
