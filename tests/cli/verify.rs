//! `seedcorn verify`: what holds, what does not, and what is named.

use insta::assert_snapshot;
use regex::Regex;
use serde_json::Value;

use crate::stage::Stage;

/// A finished run of four steps in `run`, with held-out data and a merged model.
fn finished() -> Stage {
    let stage = Stage::new();
    let shown =
        stage.train("--quiet --set data.eval_count=2 --set checkpoint.every_steps=2 --set export.merged=f32");
    assert!(shown.starts_with("exit 0"), "{shown}");
    stage
}

/// Hashes and the tier depend on the machine, and by that the size of a card.
fn plain(text: &str) -> String {
    let hashes = Regex::new(r"\b[0-9a-f]{12,64}\b").unwrap();
    let text = hashes.replace_all(text, "[HASH]");
    let sizes = Regex::new(r"(files +\d+ files), [0-9.]+ [KM]B").unwrap();
    let text = sizes.replace_all(&text, "$1, [SIZE]");
    Regex::new(r"cpu (amx|avx512|avx2|portable)").unwrap().replace_all(&text, "cpu [TIER]").into_owned()
}

fn flip(stage: &Stage, name: &str, at: usize) {
    let mut bytes = fs_err::read(stage.path(name)).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 1;
    stage.write(name, bytes);
}

#[test]
fn a_run_its_lock_and_its_exports() {
    let stage = finished();
    assert_snapshot!(plain(&stage.seedcorn("verify run")), @r#"
    exit 0
    ----- stdout
    ok      lock          `run/run.lock`, whole (sha256 [HASH]...)
    ok      files         21 files, [SIZE], as the lock says
    -       signature     there is none
    ok      recipe        `recipe.toml`, as the lock says
    ok      model         `model`: 3 files, 381 KB, as the lock says
    ok      data.train.0  `data.jsonl`: 1 file, 1.97 KB, as the lock says
    ok      samples       14 trained, 2 held out, 210 trained tokens, in the same order
    ok      steps         1 to 4, loss, gradient norm and adapter: same bits (cpu [TIER])
    verified: 7 passed, 1 not made
    "#);
    assert_snapshot!(plain(&stage.seedcorn("verify run/adapter --files-only")), @r#"
    exit 0
    ----- stdout
    ok      lock          `run/adapter/run.lock`, whole (sha256 [HASH]...)
    ok      files         4 files, [SIZE], as the lock says
    -       signature     there is none
    ok      recipe        `recipe.toml`, as the lock says
    verified: 3 passed, 1 not made
    "#);
    let merged = stage.seedcorn("verify run/merged --files-only --quiet");
    assert_eq!(merged, "exit 0\n----- stdout\nverified: 3 passed, 1 not made");
    // The lock alone, beside the recipe, as recipes are published.
    fs_err::copy(stage.path("run/run.lock"), stage.path("run.lock")).unwrap();
    fs_err::rename(stage.path("run"), stage.path("elsewhere")).unwrap();
    assert_snapshot!(plain(&stage.seedcorn("verify run.lock --steps 2")), @r#"
    exit 0
    ----- stdout
    ok      lock          `run.lock`, whole (sha256 [HASH]...)
    -       files         none of the run's files lie beside the lock
    -       signature     there is none
    ok      recipe        `recipe.toml`, as the lock says
    ok      model         `model`: 3 files, 381 KB, as the lock says
    ok      data.train.0  `data.jsonl`: 1 file, 1.97 KB, as the lock says
    ok      samples       14 trained, 2 held out, 210 trained tokens, in the same order
    ok      steps         1 to 2, loss, gradient norm and adapter: same bits (cpu [TIER])
    verified: 6 passed, 2 not made
    "#);
}

#[test]
fn the_whole_run_again() {
    let stage = finished();
    assert_snapshot!(plain(&stage.seedcorn("verify run --full --out again")), @r#"
    exit 0
    ----- stdout
    ok      lock          `run/run.lock`, whole (sha256 [HASH]...)
    ok      files         21 files, [SIZE], as the lock says
    -       signature     there is none
    ok      recipe        `recipe.toml`, as the lock says
    ok      model         `model`: 3 files, 381 KB, as the lock says
    ok      data.train.0  `data.jsonl`: 1 file, 1.97 KB, as the lock says
    ok      samples       14 trained, 2 held out, 210 trained tokens, in the same order
    ok      steps         1 to 4, loss, gradient norm and adapter: same bits (cpu [TIER])
    ok      full          4 steps, adapter [HASH]: same bits (cpu [TIER])
    verified: 8 passed, 1 not made
    "#);
    let digest = |run: &str| {
        let lock: toml::Table = toml::from_str(&stage.read(&format!("{run}/run.lock"))).unwrap();
        lock["results"]["adapter_sha256"].clone()
    };
    assert_eq!(digest("run"), digest("again"));
}

#[test]
fn json_has_each_check() {
    let stage = finished();
    stage.write("run/notes.txt", "mine");
    flip(&stage, "data.jsonl", 0);
    let shown = stage.seedcorn("verify run --json");
    let json: Value =
        serde_json::from_str(shown.strip_prefix("exit 1\n----- stdout\n").expect(&shown)).unwrap();
    assert_eq!(json["verified"], false);
    let checks = json["checks"].as_array().unwrap();
    let of = |name: &str| {
        let found = checks.iter().filter(|check| check["name"] == name);
        found.map(|check| check["status"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of("files"), ["ok", "skipped"], "{json}");
    assert_eq!((of("model"), of("data.train.0"), of("steps")), (vec!["ok"], vec!["failed"], vec!["skipped"]));
}

/// One byte of each file that went in or came out.
#[test]
fn a_changed_byte_is_found_and_named() {
    let stage = finished();
    let mut names = vec!["data.jsonl".to_owned(), "recipe.toml".to_owned()];
    for folder in ["model", "run", "run/adapter", "run/merged", "run/checkpoints/step-000004"] {
        let entries = fs_err::read_dir(stage.path(folder)).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        let files = files.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy()));
        names.extend(files);
    }
    // A fixture's folder holds more than the model.
    let lock = stage.read("run/run.lock");
    let read =
        |name: &str| name.strip_prefix("model/").is_none_or(|name| lock.contains(&format!("\"{name}\"")));
    names.retain(|name| read(name));
    assert!(names.len() > 14, "{names:?}");
    for (index, name) in names.iter().enumerate() {
        let whole = fs_err::read(stage.path(name)).unwrap();
        flip(&stage, name, index * 7919);
        let shown = stage.seedcorn("verify run --steps 0");
        let named = shown.lines().any(|line| line.starts_with("FAILED") && line.contains(name.as_str()));
        assert!(shown.starts_with("exit 1") && named, "{name}: {shown}");
        stage.write(name, whole);
    }
    assert!(stage.seedcorn("verify run --steps 0").starts_with("exit 0"));
}

#[test]
fn a_missing_file_and_one_of_another_run() {
    let stage = finished();
    fs_err::remove_file(stage.path("run/adapter/adapter_config.json")).unwrap();
    assert_snapshot!(plain(&stage.seedcorn("verify run --files-only")), @r#"
    exit 1
    ----- stdout
    ok      lock          `run/run.lock`, whole (sha256 [HASH]...)
    FAILED  files         `run/adapter/adapter_config.json` is missing
    -       signature     there is none
    ok      recipe        `recipe.toml`, as the lock says
    NOT verified: 1 failed, 2 passed, 1 not made
    "#);
}

/// Signed by a key, and compared with it, with another, and without one.
#[test]
fn a_signed_adapter() {
    let stage = finished();
    for key in ["P-256.pem", "P-256.pub.pem", "P-384.pub.pem"] {
        stage.copy(&format!("signing/{key}"), key);
    }
    let signature = |args: &str| {
        let shown = stage.seedcorn(&format!("verify run/adapter --files-only {args}"));
        let code = shown.lines().next().unwrap().to_owned();
        let lines = shown.lines().filter(|line| line.contains("  signature  ")).map(plain);
        (code, lines.collect::<Vec<_>>())
    };
    let failed = |(code, lines): (String, Vec<String>), what: &str| {
        assert_eq!(code, "exit 1");
        assert!(lines.len() == 1 && lines[0].starts_with("FAILED") && lines[0].contains(what), "{lines:?}");
    };
    assert_eq!(signature("").1, ["-       signature     there is none"]);
    failed(signature("--key P-256.pub.pem"), "there is no `run/adapter/model.sig`");
    assert!(stage.seedcorn("sign run/adapter --key P-256.pem").starts_with("exit 0"));
    let (code, lines) = signature("--key P-256.pub.pem");
    assert_eq!(code, "exit 0");
    assert!(lines[0].contains("5 files") && lines[0].contains("signed by the P-256 key"), "{lines:?}");
    assert!(signature("").1[0].contains("by whom is not known without `--key`"));
    assert!(
        stage.seedcorn("verify run --files-only --key P-256.pub.pem").contains("there is no `run/model.sig`")
    );
    failed(signature("--key P-384.pub.pem"), "model.sig");
    stage.write("run/adapter/extra.bin", "x");
    failed(signature("--key P-256.pub.pem"), "`extra.bin` is not signed");
}

/// A lock that claims other numbers than its inputs give, sealed as it should be.
#[test]
fn a_false_claim_is_found_by_training_again() {
    let stage = finished();
    let text = stage.read("run/run.lock");
    let (content, _) = text.split_once("\n[seal]\n").unwrap();
    let loss = Regex::new(r"(?m)^loss = \d+\.(\d)").unwrap();
    let digit = loss.captures(content).unwrap().get(1).unwrap();
    let mut claimed = content.to_owned();
    let other = if digit.as_str() == "1" { "2" } else { "1" };
    claimed.replace_range(digit.range(), other);
    stage.write("false.lock", sealed(&claimed));
    let shown = stage.seedcorn("verify false.lock");
    assert!(shown.starts_with("exit 1"), "{shown}");
    assert!(shown.contains("FAILED  steps         step 1: loss is "), "{shown}");
}

fn sealed(content: &str) -> String {
    let hash = seedcorn_data::source::hash_text(content);
    format!("{content}\n[seal]\nsha256 = \"{hash}\"\n")
}

/// Another tier gives other last bits, and is told so. A lock of the tier that this machine has is followed.
#[test]
fn another_device_class_is_compared_by_tolerance() {
    let stage = finished();
    let portable = |args: &str| {
        let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
        let command = command.env("SEEDCORN_ISA", "portable").args(args.split(' '));
        stage.show(&command.output().unwrap())
    };
    let trained = portable("train recipe.toml --quiet --set output=portable");
    assert!(trained.starts_with("exit 0"), "{trained}");
    let followed = stage.seedcorn("verify portable");
    assert!(followed.contains("same bits (cpu portable)"), "{followed}");
    let shown = portable("verify run --steps 2");
    let expected = if stage.read("run/run.lock").contains("isa = \"portable\"") {
        "same bits"
    } else {
        "losses within 1e-4 and norms within 1e-3"
    };
    assert!(shown.starts_with("exit 0") && shown.contains(expected), "{shown}");
}

#[test]
fn what_cannot_be_verified() {
    let stage = Stage::new();
    assert_snapshot!(stage.seedcorn("verify nothing"), @r#"
    exit 2
    ----- stderr
    error: `nothing` does not exist

    hint: name the folder of a run, its `run.lock`, or the folder of an adapter
    "#);
    assert_snapshot!(stage.seedcorn("verify model"), @r#"
    exit 2
    ----- stderr
    error: `model` has no `run.lock` and no `model.sig`

    hint: name the folder of a run, its `run.lock`, or the folder of an adapter
    "#);
    stage.write("run.lock", "version = 1\n");
    assert_snapshot!(stage.seedcorn("verify run.lock"), @r#"
    exit 1
    ----- stdout
    FAILED  lock          `run.lock` has lock version 1, only 2 is known
    -       signature     there is none
    NOT verified: 1 failed, 0 passed, 1 not made
    "#);
}

/// An interrupted run has the results of one that was not.
#[test]
fn a_resumed_run_has_the_same_results() {
    let stage = finished();
    for step in ["checkpoints/step-000004", "adapter", "merged"] {
        fs_err::rename(stage.path(&format!("run/{step}")), stage.path("gone")).unwrap();
        fs_err::remove_dir_all(stage.path("gone")).unwrap();
    }
    let before = stage.read("run/run.lock");
    let more = "--set data.eval_count=2 --set checkpoint.every_steps=2 --set export.merged=f32";
    let shown = stage.train(&format!("--quiet --resume --threads 1 {more}"));
    assert!(shown.starts_with("exit 0"), "{shown}");
    // Times are in the metrics and what is made of them.
    let results = |text: &str| {
        let mut lock: toml::Table = toml::from_str(text).unwrap();
        let mut results = lock.remove("results").unwrap();
        let files = results["files"].as_array_mut().unwrap();
        let timed = ["metrics.jsonl", "report.html", "report.json", "tensorboard/"];
        files.retain(|file| !timed.iter().any(|timed| file["name"].as_str().unwrap().starts_with(timed)));
        results
    };
    assert_eq!(results(&stage.read("run/run.lock")), results(&before));
    assert!(stage.seedcorn("verify run").starts_with("exit 0"));
}
