//! Runs of several ranks: what they say, what they leave, and how they end when one of them cannot go on.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use insta::assert_snapshot;

use crate::runs::{adapter, without_numbers};
use crate::stage::Stage;

/// How long a test waits before it gives up.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn as_threads() {
    let stage = Stage::new();
    let held_out = "--set data.eval_count=4 --set eval.every_steps=2";
    let shown = stage.train(&format!("{held_out} --set parallel.data=2"));
    assert_snapshot!(without_numbers(&shown), @r#"
    exit 0
    ----- stdout

    held-out loss: [X] before, [X] after 4 steps

    adapter: run/adapter (read back, same logits)
    report: run/report.html
    next: seedcorn merge run/adapter --base 'model' --out run/merged
    ----- stderr
    model: model (llama, [X] M parameters, 2 layers)
    data: 12 samples, 192 tokens, 180 trained; 4 samples held out
    adapter: 14 layers, [X] M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 12 sequences an epoch; 4 steps
    licences: base unknown; data unknown
    2 ranks x 1 micro-batches
    step 0  held-out loss [X]  perplexity [X]  (60 tokens)
    step 1/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 2/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 2  held-out loss [X]  perplexity [X]  (60 tokens)
    step 3/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 4/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 4  held-out loss [X]  perplexity [X]  (60 tokens)
    "#);
    assert!(stage.train(&format!("{held_out} --set output=one --quiet")).starts_with("exit 0"));
    assert!(adapter(&stage, "run") == adapter(&stage, "one"), "two ranks give other bits than one");
}

#[test]
fn that_add_in_an_order_of_their_own() {
    let stage = Stage::new();
    let fast = "--set parallel.data=2 --set parallel.reduction=fast";
    let line = "`parallel.reduction` is \"fast\": another number of ranks gives other bits\n";
    assert!(stage.seedcorn(&format!("check recipe.toml {fast}")).contains(line));
    assert!(!stage.seedcorn("check recipe.toml --set parallel.reduction=fast").contains("other bits"));
    assert!(stage.train(&format!("{fast} --quiet")).starts_with("exit 0"));
    assert!(stage.read("run/run.lock").contains("reduction = \"fast\""));
    let verified = stage.seedcorn("verify run");
    assert!(verified.starts_with("exit 0"), "{verified}");
    assert!(
        verified.contains("(the lock's ranks added gradients with `parallel.reduction` = \"fast\")"),
        "{verified}"
    );
}

#[test]
fn that_do_not_divide_a_step() {
    let stage = Stage::new();
    assert_snapshot!(stage.seedcorn("check recipe.toml --set parallel.data=3"), @r#"
    exit 2
    ----- stderr
    error: could not use the recipe `recipe.toml`
      Caused by: `parallel.data` (3) does not divide the 2 micro-batches of a step

    hint: use 1 or 2, or change `train.batch_size` or `train.micro_batch`
    "#);
    assert_snapshot!(stage.train("--set parallel.data=4"), @r#"
    exit 2
    ----- stderr
    error: could not use the recipe `recipe.toml`
      Caused by: `parallel.data` (4) does not divide the 2 micro-batches of a step

    hint: use 1 or 2, or change `train.batch_size` or `train.micro_batch`
    "#);
    assert!(!stage.path("run").exists());
}

/// Rank 0 writes; when it cannot, the other one must not wait for it.
#[test]
fn of_which_one_fails() {
    let stage = Stage::new();
    let settings = "--set parallel.data=2 --set checkpoint.every_steps=2";
    let train = format!("'{}' train recipe.toml {settings} --quiet", env!("CARGO_BIN_EXE_seedcorn"));
    let mut command = stage.command("sh");
    // No file may grow beyond a size that a checkpoint needs.
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f 20; exec {train}")]);
    let started = Instant::now();
    assert_snapshot!(stage.show(&command.output().unwrap()), @r#"
    exit 3
    ----- stderr
    error: rank 0 failed after `compare` of step 2
      Caused by: could not save the checkpoint `run/checkpoints/step-000002`
      Caused by: failed to write to file `run/checkpoints/.tmp-step-000002/tensors.safetensors`: File too large (os error 27)

    hint: no earlier checkpoint exists; free some space, then start again
    "#);
    assert!(started.elapsed() < Duration::from_secs(10));
    // With room the run starts over, to the bits of a run that never failed.
    assert!(stage.train(&format!("{settings} --resume --quiet")).starts_with("exit 0"));
    assert!(stage.train("--set output=one --quiet").starts_with("exit 0"));
    assert!(adapter(&stage, "run") == adapter(&stage, "one"));
}

#[test]
fn that_all_see_a_broken_loss() {
    let stage = Stage::new();
    let shown =
        stage.train("--set parallel.data=2 --set optimizer.lr=1e30 --set schedule.kind=constant --quiet");
    assert_snapshot!(shown, @r#"
    exit 1
    ----- stderr
    error: loss is not finite at step 2 (NaN); the update was not applied

    hint: the step's samples are in `run/bad/step-000002.jsonl`; resume from the last checkpoint with a lower `optimizer.lr`
    "#);
    assert!(stage.path("run/bad/step-000002.jsonl").exists());
}

fn start(stage: &Stage, more: &str) -> Child {
    let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
    command.args(["train", "recipe.toml", "--quiet"]).args(more.split_whitespace());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a run has done a step.
pub(crate) fn wait_for_a_step(stage: &Stage, run: &str, child: &mut Child) {
    let (path, deadline) = (stage.path(&format!("{run}/metrics.jsonl")), Instant::now() + PATIENCE);
    while !fs_err::read_to_string(&path).is_ok_and(|text| text.contains("\"grad_norm\"")) {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before its first step");
        assert!(Instant::now() < deadline, "no step was done");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal to a process that is not waited for yet.
pub(crate) fn signal(process: u32, name: &str) {
    let mut kill = Command::new("kill");
    assert!(kill.args([format!("-{name}"), process.to_string()]).status().unwrap().success());
}

#[test]
fn that_are_asked_to_stop() {
    for (ranks, name) in [(1, "TERM"), (2, "INT"), (2, "USR1")] {
        let stage = Stage::new();
        let settings = "--set train.steps=150 --set checkpoint.every_steps=1000";
        let mut child = start(&stage, &format!("{settings} --set parallel.data={ranks}"));
        wait_for_a_step(&stage, "run", &mut child);
        signal(child.id(), name);
        let shown = stage.show(&child.wait_with_output().unwrap());
        let steps = fs_err::read_to_string(stage.path("run/metrics.jsonl")).unwrap().lines().count();
        assert!(steps < 150, "it did not stop");
        assert_eq!(
            shown,
            format!(
                "exit 1\n----- stderr\nerror: stopped by a signal after step {steps} of 150\n\n\
                 hint: the state is saved; continue with `--resume`"
            )
        );
        assert!(stage.path(&format!("run/checkpoints/step-{steps:06}/manifest.json")).exists());
        // On the other number of ranks.
        let others = 3 - ranks;
        assert!(
            stage
                .train(&format!("{settings} --set parallel.data={others} --resume --quiet"))
                .starts_with("exit 0")
        );
        assert!(stage.train(&format!("{settings} --set output=whole --quiet")).starts_with("exit 0"));
        assert!(adapter(&stage, "run") == adapter(&stage, "whole"), "{ranks} ranks, {name}");
    }
}

/// The second signal ends the process as if no one listened.
#[cfg(unix)]
#[test]
fn that_are_told_to_stop_at_once() {
    use std::os::unix::process::ExitStatusExt;
    const SIGTERM: i32 = 15;
    let stage = Stage::new();
    // One long step: the first signal is seen after it.
    let settings = "--set train.batch_size=4096 --set train.steps=2 --set parallel.data=2";
    let mut child = start(&stage, settings);
    let deadline = Instant::now() + PATIENCE;
    while !stage.path("run/run.lock").exists() {
        assert!(Instant::now() < deadline, "the run did not start");
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(child.id(), "TERM");
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "the first signal ended it");
    signal(child.id(), "TERM");
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(SIGTERM), "{status}");
    assert!(!stage.path("run/adapter").exists());
}

/// Runs `train recipe.toml` with variables of a launcher.
fn launched(stage: &Stage, variables: &[(&str, &str)], more: &str) -> String {
    let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
    command.args(["train", "recipe.toml"]).args(more.split_whitespace()).envs(variables.iter().copied());
    stage.show(&command.output().unwrap())
}

#[test]
fn that_a_launcher_has_started() {
    let stage = Stage::new();
    let two = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
    if !cfg!(feature = "mpi") {
        assert_snapshot!(launched(&stage, &two, ""), @r#"
        exit 2
        ----- stderr
        error: this process is rank 1 of 2 (`OMPI_COMM_WORLD_RANK` and `OMPI_COMM_WORLD_SIZE`), but this program has no way to reach the others

        hint: build with `--features mpi` and start with `mpirun`, or unset `OMPI_COMM_WORLD_RANK` and `OMPI_COMM_WORLD_SIZE` to run alone
        "#);
    }
    assert_snapshot!(launched(&stage, &two, "--set parallel.data=1"), @r#"
    exit 2
    ----- stderr
    error: `parallel.data` is 1, but the launcher has started 2 ranks

    hint: write `parallel.data = "auto"`, or start as many ranks
    "#);
    let three = [("RANK", "0"), ("WORLD_SIZE", "3")];
    assert_snapshot!(launched(&stage, &three, ""), @r#"
    exit 2
    ----- stderr
    error: `parallel.data` (3) does not divide the 2 micro-batches of a step

    hint: use 1 or 2, or change `train.batch_size` or `train.micro_batch`
    "#);
    assert_snapshot!(launched(&stage, &three[..1], ""), @r#"
    exit 2
    ----- stderr
    error: `RANK` is set, but `WORLD_SIZE` is not

    hint: set `WORLD_SIZE` too, or unset `RANK` to run alone
    "#);
    assert!(!stage.path("run").exists());
    // One process is alone.
    let one = [("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "1")];
    assert!(launched(&stage, &one, "--quiet --set parallel.data=2").starts_with("exit 0"));
}
