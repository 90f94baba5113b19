//! `plan`: what a run needs, before any weight is read. Products in f32 need the same on every instruction tier.

use insta::assert_snapshot;
use serde_json::Value;

use crate::stage::Stage;

const PLAN: &str = "plan recipe.toml --threads 2";

#[test]
fn of_a_run_here() {
    let more = "--set data.eval_count=4 --set checkpoint.every_steps=2 --set export.merged=bf16";
    assert_snapshot!(Stage::new().seedcorn(&format!("{PLAN} --memory 1GB {more}")));
}

#[test]
fn of_a_mesh() {
    let stage = Stage::new();
    assert_snapshot!(stage.seedcorn(&format!("{PLAN} --mesh data=8 --set train.batch_size=48")));
    assert_snapshot!(stage.seedcorn(&format!("{PLAN} --mesh data=3")), @r#"
    exit 2
    ----- stderr
    error: `parallel.data` (3) does not divide the 2 micro-batches of a step

    hint: use 1 or 2, or change `train.batch_size` or `train.micro_batch`
    "#);
}

#[test]
fn that_does_not_fit() {
    let stage = Stage::new();
    let more = "--set train.activation=keep --set train.micro_batch=1024 --set train.batch_size=1024";
    let shown = stage.seedcorn(&format!("{PLAN} --memory 20MB {more}"));
    assert!(shown.starts_with("exit 1\n"), "{shown}");
    assert!(shown.contains("\ndoes not fit: "), "{shown}");
    let (_, stderr) = shown.split_once("----- stderr\n").unwrap();
    assert_snapshot!(stderr);
}

/// A model of which there is nothing but the shape: no weights, no data, and as many ranks as one likes.
#[test]
fn of_a_configuration() {
    let stage = Stage::new();
    for file in ["model/model.safetensors", "data.jsonl"] {
        fs_err::remove_file(stage.path(file)).unwrap();
    }
    let json = |more: &str| -> Value {
        let shown = stage.seedcorn(&format!("{PLAN} --json {more}"));
        let (code, json) = shown.split_once("----- stdout\n").unwrap();
        assert_eq!(code, "exit 0\n", "{shown}");
        serde_json::from_str(json).unwrap()
    };
    let one = json("");
    assert_eq!((&one["imagined"], &one["ranks"], &one["tokens"]), (&true.into(), &1.into(), &64.into()));
    assert!(one["traffic"]["step"].as_array().unwrap().is_empty());
    let many = json("--mesh data=1024 --set train.batch_size=2048");
    assert_eq!((&many["ranks"], &many["micro_batches"]), (&1024.into(), &1.into()));
    let alone = json("--set train.batch_size=2");
    let own = |plan: &Value, at: usize| plan["memory"]["items"][at]["own"].clone();
    for at in 0..many["memory"]["items"].as_array().unwrap().len() {
        assert_eq!(own(&many, at), own(&alone, at), "a rank needs no more for there being others");
    }
    let values = many["trained_values"].as_u64().unwrap();
    let sent = many["traffic"]["step"].as_array().unwrap().iter();
    let gradients = sent.filter(|one| one["op"] == "gradients").map(|one| one["bytes"].as_u64().unwrap());
    let ring = 2 * 4 * values * 1023 / 1024;
    assert!(gradients.sum::<u64>().abs_diff(ring) < 8 * 1024, "not what a ring sends: {many}");
}

#[test]
fn of_a_configuration_that_no_machine_holds() {
    let stage = Stage::new();
    fs_err::remove_file(stage.path("model/model.safetensors")).unwrap();
    stage.edit("model/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 4096");
    stage.edit("model/config.json", "\"intermediate_size\": 96", "\"intermediate_size\": 2147483648");
    let shown = stage.seedcorn(&format!("{PLAN} --memory 1GB --set data.max_length=16777216"));
    assert!(shown.starts_with("exit 1\n") && shown.contains("\ndoes not fit: "), "{shown}");
}

/// `check` and `train` refuse what cannot fit before a weight is read.
#[test]
fn of_a_run_that_no_machine_holds() {
    let stage = Stage::new();
    let ids: Vec<u32> = (0..512).map(|at| at % 200).collect();
    stage.write("data.jsonl", serde_json::json!({ "input_ids": ids }).to_string());
    let more = "--set data.max_length=512 --set train.batch_size=1048576 --set train.micro_batch=1048576";
    for verb in ["check", "train"] {
        let shown = stage.seedcorn(&format!("{verb} recipe.toml {more}"));
        assert!(shown.starts_with("exit 1\n") && shown.contains("error: the run needs "), "{verb}: {shown}");
        assert!(shown.contains("`train.micro_batch = 1`"), "{verb}: {shown}");
        assert!(!stage.path("run").exists());
    }
}
