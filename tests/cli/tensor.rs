//! Ranks that hold one model together: what they say, what is refused, and what a lock and a plan tell of them.

use insta::assert_snapshot;
use serde_json::Value;

use crate::stage::Stage;

#[test]
fn as_threads() {
    let stage = Stage::new();
    let shown = stage.train("--set data.eval_count=4 --set parallel.data=2 --set parallel.tensor=2");
    assert!(shown.starts_with("exit 0\n"), "{shown}");
    assert!(shown.contains("adapter: run/adapter (read back, same logits)"), "{shown}");
    let mesh = "4 ranks, 2 (data) x 2 (tensor): 2 compute each of 1 micro-batches together";
    assert!(shown.contains(mesh), "{shown}");
    let lock = stage.read("run/run.lock");
    assert!(lock.contains("[results.mesh]\ndata = 2\ntensor = 2\n"), "{lock}");
    let verified = stage.seedcorn("verify run");
    assert!(
        verified.starts_with("exit 0\n") && verified.contains("1 to 4, loss, gradient norm"),
        "{verified}"
    );
    let whole = stage.seedcorn("verify run --full");
    assert!(whole.starts_with("exit 0\n") && whole.contains("same bits"), "{whole}");
}

#[test]
fn that_cannot_cut_the_model() {
    let stage = Stage::new();
    assert_snapshot!(stage.seedcorn("check recipe.toml --set parallel.tensor=4"), @r#"
    exit 2
    ----- stderr
    error: could not load the model `[HERE]/model`
      Caused by: `parallel.tensor` (4) cannot cut this model: it has 2 key/value heads

    hint: set `parallel.tensor` to 1 or 2
    "#);
    assert_snapshot!(stage.train("--set parallel.tensor=2 --set model.quantize=nf4"), @r#"
    exit 2
    ----- stderr
    error: could not load the model `[HERE]/model`
      Caused by: `parallel.tensor` (2) cannot cut this model: a slice of `o_proj` would have 32 of 64 columns, which are not whole nf4 blocks of 64

    hint: this model cannot be cut: set `parallel.tensor = 1`, and more ranks with `parallel.data`
    "#);
    assert!(!stage.path("run").exists());
    fs_err::remove_file(stage.path("model/model.safetensors")).unwrap();
    let shown = stage.seedcorn("plan recipe.toml --mesh tensor=3");
    assert!(shown.starts_with("exit 2\n") && shown.contains("it has 4 attention heads"), "{shown}");
}

#[test]
fn in_a_plan() {
    let stage = Stage::new();
    let json = |mesh: &str| -> Value {
        let shown = stage.seedcorn(&format!("plan recipe.toml --json --mesh {mesh}"));
        let (code, json) = shown.split_once("----- stdout\n").unwrap();
        assert_eq!(code, "exit 0\n", "{shown}");
        serde_json::from_str(json).unwrap()
    };
    let (whole, cut) = (json("data=2"), json("data=2,tensor=2"));
    assert_eq!((&cut["ranks"], &cut["tensor"], &cut["micro_batches"]), (&4.into(), &2.into(), &1.into()));
    assert!(whole.get("tensor").is_none());
    let item = |plan: &Value, name: &str| {
        let items = plan["memory"]["items"].as_array().unwrap();
        let found = items.iter().find(|item| item["item"] == name).unwrap();
        found["shared"].as_u64().unwrap() + found["own"].as_u64().unwrap()
    };
    for name in ["linear layers", "embedding", "head"] {
        assert_eq!(2 * item(&cut, name), item(&whole, name), "{name}");
    }
    let ops: Vec<&str> =
        cut["traffic"]["step"].as_array().unwrap().iter().map(|one| one["op"].as_str().unwrap()).collect();
    let expected = [
        "embedding",
        "activations",
        "softmax",
        "stop",
        "factors",
        "factors",
        "loss",
        "gradients",
        "gradients",
    ];
    assert_eq!(ops, expected);
    let text = stage.seedcorn("plan recipe.toml --mesh tensor=2,data=2");
    assert!(text.contains("mesh: 4 ranks, 2 (data) x 2 (tensor), each with 1 micro-batch of"), "{text}");
    for bad in ["tensor=0", "data=2,data=2", "tensor", "data=300,tensor=300"] {
        assert!(stage.seedcorn(&format!("plan recipe.toml --mesh {bad}")).starts_with("exit 2\n"), "{bad}");
    }
}

#[test]
fn that_a_launcher_has_not_started() {
    let stage = Stage::new();
    let launched = |ranks: &str, more: &str| {
        let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
        command.env("RANK", "0").env("WORLD_SIZE", ranks);
        command.args(["train", "recipe.toml"]).args(more.split_whitespace().flat_map(|set| ["--set", set]));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = launched("3", "parallel.tensor=2");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("`parallel.tensor` is 2, but the launcher has started 3 ranks"), "{told}");
    let (code, told) = launched("4", "parallel.tensor=2 parallel.data=1");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("`parallel.data` times `parallel.tensor` is 1 x 2, but the launcher"), "{told}");
}
