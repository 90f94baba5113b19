//! Whole runs: what a user sees when all goes well, and what is left when it does not.

use std::process::Command;

use insta::assert_snapshot;
use regex::Regex;
use serde_json::Value;

use crate::stage::Stage;
use crate::weights::Tensors;

const EVAL: &str = "eval model --data data.jsonl --format tokens";

/// Losses depend on the processor's instruction tier in their last digits.
pub(crate) fn without_numbers(text: &str) -> String {
    let numbers = Regex::new(r"\d+\.\d+(e-?\d+)?").unwrap();
    numbers.replace_all(text, "[X]").into_owned()
}

/// The value of `key` in every row of `metrics.jsonl` that has one.
fn metrics(stage: &Stage, key: &str) -> Vec<f64> {
    let rows = stage.read("run/metrics.jsonl");
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter_map(|row| row.get(key).and_then(Value::as_f64)).collect()
}

pub(crate) fn adapter(stage: &Stage, run: &str) -> Vec<u8> {
    fs_err::read(stage.path(&format!("{run}/adapter/adapter_model.safetensors"))).unwrap()
}

/// `eval --json` as JSON.
fn evaluated(stage: &Stage, more: &str) -> Value {
    let shown = stage.seedcorn(&format!("{EVAL} --json {more}"));
    let json = shown.strip_prefix("exit 0\n----- stdout\n").expect(&shown);
    serde_json::from_str(json).unwrap()
}

#[test]
fn trains_evaluates_and_exports() {
    let stage = Stage::new();
    let shown = stage.train("--set data.eval_count=2 --set train.steps=12");
    assert_snapshot!(without_numbers(&shown), @r#"
    exit 0
    ----- stdout

    held-out loss: [X] before, [X] after 12 steps

    adapter: run/adapter (read back, same logits)
    report: run/report.html
    next: seedcorn merge run/adapter --base 'model' --out run/merged
    ----- stderr
    model: model (llama, [X] M parameters, 2 layers)
    data: 14 samples, 224 tokens, 210 trained; 2 samples held out
    adapter: 14 layers, [X] M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 14 sequences an epoch; 12 steps
    licences: base unknown; data unknown
    step 0  held-out loss [X]  perplexity [X]  (30 tokens)
    step 1/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 2/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 3/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 4/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 5/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 6/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 7/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 8/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 9/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 10/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 11/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 12/12  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 12  held-out loss [X]  perplexity [X]  (30 tokens)
    "#);
    let (losses, held_out) = (metrics(&stage, "loss"), metrics(&stage, "eval_loss"));
    assert_eq!((losses.len(), held_out.len()), (12, 2));
    assert!(losses[11] < losses[0] / 3.0, "{losses:?}");
    assert!(held_out[1] < held_out[0] / 3.0, "{held_out:?}");
    assert!(stage.read("run/run.lock").contains("[results]"));

    let (before, after) = (evaluated(&stage, ""), evaluated(&stage, "--adapter run/adapter"));
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap();
    assert!(number(&after, "loss") < number(&before, "loss") / 3.0, "{before} {after}");
    assert_eq!(number(&after, "perplexity"), number(&after, "loss").exp());
    assert_eq!((&after["tokens"], &after["sources"][0]["source"]), (&240.into(), &"data.jsonl".into()));
}

#[test]
fn eval_in_words_and_logits() {
    let stage = Stage::new();
    let shown = stage.seedcorn(&format!("{EVAL} --logits logits.safetensors"));
    assert_snapshot!(without_numbers(&shown), @r#"
    exit 0
    ----- stdout
    data.jsonl: loss [X], perplexity [X], 240 tokens
    "#);
    let logits = Tensors::read(&stage.path("logits.safetensors"));
    assert_eq!(logits.header.len(), 16);
    assert_eq!(logits.shape("logits.0"), [16, 256]);
    // The loss that the logits give is the loss that was told.
    let nll = |sample: usize| -> f64 {
        let values = logits.f32s(&format!("logits.{sample}"));
        let target = |at: usize| (sample * 3 + at) % 5 + 40;
        (0..15)
            .map(|at| {
                let row = &values[at * 256..][..256];
                let sum: f64 = row.iter().map(|&value| f64::from(value).exp()).sum();
                sum.ln() - f64::from(row[target(at + 1)])
            })
            .sum()
    };
    let loss = (0..16).map(nll).sum::<f64>() / 240.0;
    let told = evaluated(&stage, "")["loss"].as_f64().unwrap();
    assert!((loss - told).abs() < 1e-5, "{loss} {told}");
}

#[test]
fn folder_of_another_run() {
    let stage = Stage::new();
    assert!(stage.train("--quiet").starts_with("exit 0"));
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    model: model (llama, 0.1 M parameters, 2 layers)
    data: 16 samples, 256 tokens, 240 trained; 0 samples held out
    adapter: 14 layers, 0.00 M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 16 sequences an epoch; 4 steps
    licences: base unknown; data unknown
    error: the output folder `run` holds another run (`run.lock`)

    hint: continue that run with `--resume`, or choose another folder with `--set output=...`
    "#);
}

#[test]
fn resume_with_another_recipe() {
    let stage = Stage::new();
    assert!(stage.train("--quiet").starts_with("exit 0"));
    let whole = adapter(&stage, "run");
    assert_snapshot!(stage.train("--resume --set optimizer.lr=0.5 --set train.seed=3"), @r#"
    exit 2
    ----- stderr
    model: model (llama, 0.1 M parameters, 2 layers)
    data: 16 samples, 256 tokens, 240 trained; 0 samples held out
    adapter: 14 layers, 0.00 M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 16 sequences an epoch; 4 steps
    licences: base unknown; data unknown
    error: the checkpoint `run/checkpoints/step-000004` belongs to another recipe: `train.seed` was 0 and is 3; `optimizer.lr` was 0.02 and is 0.5

    hint: resume with the recipe the run was started with, or choose another `output`
    "#);
    stage.write("data.jsonl", crate::stage::samples(17));
    let digests = Regex::new("[0-9a-f]{64}").unwrap();
    assert_snapshot!(digests.replace_all(&stage.train("--resume"), "[DIGEST]"), @r#"
    exit 2
    ----- stderr
    model: model (llama, 0.1 M parameters, 2 layers)
    data: 17 samples, 272 tokens, 255 trained; 0 samples held out
    adapter: 14 layers, 0.00 M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 17 sequences an epoch; 4 steps
    licences: base unknown; data unknown
    error: the checkpoint `run/checkpoints/step-000004` belongs to other inputs: lock [DIGEST], now [DIGEST]

    hint: model, data, program or device changed since; restore them, or choose another `output`
    "#);
    assert_eq!(adapter(&stage, "run"), whole);
}

#[test]
fn resume_after_the_end_exports_again() {
    let stage = Stage::new();
    assert!(stage.train("--quiet").starts_with("exit 0"));
    let whole = adapter(&stage, "run");
    fs_err::remove_dir_all(stage.path("run/adapter")).unwrap();
    assert_snapshot!(without_numbers(&stage.train("--resume")), @r#"
    exit 0
    ----- stdout

    adapter: run/adapter (read back, same logits)
    report: run/report.html
    next: seedcorn merge run/adapter --base 'model' --out run/merged
    ----- stderr
    model: model (llama, [X] M parameters, 2 layers)
    data: 16 samples, 256 tokens, 240 trained; 0 samples held out
    adapter: 14 layers, [X] M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 16 sequences an epoch; 4 steps
    licences: base unknown; data unknown
    continuing after step 4 of 4
    "#);
    assert_eq!(adapter(&stage, "run"), whole);
}

#[test]
fn broken_checkpoint_is_passed_over() {
    let stage = Stage::new();
    assert!(stage.train("--quiet --set checkpoint.every_steps=1").starts_with("exit 0"));
    let whole = adapter(&stage, "run");
    let path = stage.path("run/checkpoints/step-000004/tensors.safetensors");
    let bytes = fs_err::read(&path).unwrap();
    fs_err::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let shown = stage.train("--resume --set checkpoint.every_steps=1");
    assert_snapshot!(without_numbers(&shown), @r#"
    exit 0
    ----- stdout

    adapter: run/adapter (read back, same logits)
    report: run/report.html
    next: seedcorn merge run/adapter --base 'model' --out run/merged
    ----- stderr
    model: model (llama, [X] M parameters, 2 layers)
    data: 16 samples, 256 tokens, 240 trained; 0 samples held out
    adapter: 14 layers, [X] M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 16 sequences an epoch; 4 steps
    licences: base unknown; data unknown
    warning: skipped `run/checkpoints/step-000004`: `tensors.safetensors` has 53527 bytes, the manifest says 53528
    continuing after step 3 of 4
    step 4/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    "#);
    assert_eq!(adapter(&stage, "run"), whole);
}

/// The output folder is a file system with room for two checkpoints. The run fails at the third; with more
/// room it goes on to the adapter of a run that never failed.
#[test]
fn disk_full_while_saving() {
    let stage = Stage::new();
    let mut probe = stage.command("unshare");
    let probe = probe.args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    if !probe.output().is_ok_and(|output| output.status.success()) {
        println!(
            "ignored: this system mounts no tmpfs for us; `file_too_large_while_saving` covers the same"
        );
        return;
    }
    fs_err::create_dir_all(stage.path("run")).unwrap();
    let settings = "--set checkpoint.every_steps=1 --set checkpoint.keep=9";
    let train = format!("'{}' train recipe.toml {settings}", env!("CARGO_BIN_EXE_seedcorn"));
    let script = format!(
        "mount -t tmpfs -o size=160k tmpfs run && {{ {train}; echo \"first: exit $?\"; ls run/checkpoints; }} && \
         mount -o remount,size=4m run && {train} --resume --quiet; code=$?; cp -r run/adapter .; exit $code"
    );
    let mut command = stage.command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    assert_snapshot!(without_numbers(&stage.show(&command.output().unwrap())), @r#"
    exit 0
    ----- stdout
    first: exit 1
    step-000001
    step-000002
    ----- stderr
    model: model (llama, [X] M parameters, 2 layers)
    data: 16 samples, 256 tokens, 240 trained; 0 samples held out
    adapter: 14 layers, [X] M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 16 sequences an epoch; 4 steps
    licences: base unknown; data unknown
    step 1/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 2/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 3/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    error: could not save the checkpoint `run/checkpoints/step-000003`
      Caused by: failed to write to file `run/checkpoints/.tmp-step-000003/tensors.safetensors`: No space left on device (os error 28)

    hint: the previous checkpoint `run/checkpoints/step-000002` is intact; free some space, then continue with `--resume`
    "#);
    let found = fs_err::read(stage.path("adapter/adapter_model.safetensors")).unwrap();
    assert!(stage.train(&format!("{settings} --quiet --set output=whole")).starts_with("exit 0"));
    assert!(found == adapter(&stage, "whole"), "the resumed run ends elsewhere");
}

/// What a quota does: no file may grow beyond a size that a checkpoint needs.
#[test]
fn file_too_large_while_saving() {
    let stage = Stage::new();
    // The signal is ignored so that the write returns an error, as on a full disk.
    let limited = |settings: &str| -> Command {
        let train = format!("'{}' train recipe.toml {settings}", env!("CARGO_BIN_EXE_seedcorn"));
        let mut command = stage.command("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f 20; exec {train}")]);
        command
    };
    let output = limited("").output().unwrap();
    assert_snapshot!(without_numbers(&stage.show(&output)), @r#"
    exit 1
    ----- stderr
    model: model (llama, [X] M parameters, 2 layers)
    data: 16 samples, 256 tokens, 240 trained; 0 samples held out
    adapter: 14 layers, [X] M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 16 sequences an epoch; 4 steps
    licences: base unknown; data unknown
    step 1/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 2/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 3/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 4/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    error: could not save the checkpoint `run/checkpoints/step-000004`
      Caused by: failed to write to file `run/checkpoints/.tmp-step-000004/tensors.safetensors`: File too large (os error 27)

    hint: no earlier checkpoint exists; free some space, then start again
    "#);
    let output = limited("--set output=other --set checkpoint.every_steps=0").output().unwrap();
    assert_snapshot!(without_numbers(&stage.show(&output)), @r#"
    exit 1
    ----- stderr
    model: model (llama, [X] M parameters, 2 layers)
    data: 16 samples, 256 tokens, 240 trained; 0 samples held out
    adapter: 14 layers, [X] M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 16 sequences an epoch; 4 steps
    licences: base unknown; data unknown
    step 1/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 2/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 3/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    step 4/4  loss [X]  grad norm [X]  lr [X]  [SPEED]
    error: could not write the adapter `[HERE]/other/adapter`
      Caused by: failed to write to file `[HERE]/other/.seedcorn-new-[RANDOM]/adapter_model.safetensors`: File too large (os error 27)

    hint: no checkpoint was kept (`checkpoint.every_steps = 0`); free some space, then start again
    "#);
    assert!(!stage.path("other/adapter").exists());
}
