//! `check`, `inspect`, `merge` and `doctor`.

use crate::stage::Stage;

fn assert_parts(shown: &str, parts: &[&str]) {
    for part in parts {
        assert!(shown.contains(part), "no `{part}` in:\n{shown}");
    }
}

#[test]
fn check_prints_the_plan_and_leaves_nothing() {
    let stage = Stage::new();
    let shown = stage.seedcorn("check recipe.toml");
    assert_parts(
        &shown,
        &[
            "exit 0\n----- stdout\nmodel: ",
            "data: 16 samples, 256 tokens, 240 trained; 0 samples held out\n",
            "2 sequences x 2 micro-batches = 4 sequences a step; 16 sequences an epoch; 4 steps\n\
             licences: base unknown; data unknown\nok",
        ],
    );
    assert!(!stage.path("run").exists());
    let dry = stage.seedcorn("train recipe.toml --dry-run");
    assert_eq!(format!("{dry}\nok"), shown);
    stage.write("run/run.lock", "");
    let warning = "warning: the output folder `run` holds a run (`run.lock`): `train` needs `--resume`";
    assert_parts(&stage.seedcorn("check recipe.toml -q"), &["exit 0\n", warning]);
}

#[test]
fn check_finds_a_tensor_that_is_missing() {
    let stage = Stage::new();
    stage.edit("model/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    let shown = stage.seedcorn("check recipe.toml");
    assert_parts(
        &shown,
        &["exit 2\n", "tensor `model.layers.2.input_layernorm.weight` is missing", "hint: "],
    );
    assert!(!shown.contains("stdout"), "{shown}");
}

#[test]
fn check_finds_a_tensor_of_another_shape() {
    let stage = Stage::new();
    stage.edit("model/config.json", "\"intermediate_size\": 96", "\"intermediate_size\": 95");
    let shown = stage.seedcorn("check recipe.toml");
    let fault = "`model.layers.0.mlp.gate_proj.weight` in `[HERE]/model/model.safetensors` is [96, 64], but \
                 `config.json` says [95, 64]";
    assert_parts(&shown, &["exit 2\n", fault]);
}

#[test]
fn inspect_shows_ids_without_a_tokenizer() {
    let stage = Stage::new();
    stage.write(
        "data.jsonl",
        "{\"input_ids\": [5, 6, 7, 8, 9], \"labels\": [-100, -100, 7, 8, -100]}\n{\"input_ids\": [3, 4]}\n",
    );
    let shown = stage.seedcorn("inspect recipe.toml --set data.shuffle=false");
    let expected = "exit 0\n----- stdout\n--- sample 1 of `data.jsonl`, 5 tokens, 2 trained ---\n5 6[[ 7 8]] 9\n\
                    --- sample 2 of `data.jsonl`, 2 tokens, 1 trained ---\n3[[ 4]]\n\
                    ----- stderr\nlegend: [[trained]] masked";
    assert_eq!(shown, expected);
    let one = stage.seedcorn("inspect recipe.toml --set data.shuffle=false --samples 1 --quiet");
    assert_eq!(one, expected.split("\n--- sample 2").next().unwrap());
}

#[test]
fn inspect_shows_packs() {
    let stage = Stage::new();
    let args = "inspect recipe.toml --set data.shuffle=false --set data.packing=true --samples 2";
    let shown = stage.seedcorn(args);
    let packs: Vec<&str> = shown.lines().filter(|line| line.starts_with("===")).collect();
    assert_eq!(
        packs,
        ["=== pack 1 of 8, 2 samples, 32 tokens ===", "=== pack 2 of 8, 2 samples, 32 tokens ==="]
    );
    assert_eq!(shown.matches("--- sample ").count(), 4, "{shown}");
}

#[test]
fn inspect_shows_text_and_special_tokens() {
    let stage = Stage::new();
    stage.copy("models/gguf-llama/model.gguf", "model.gguf");
    stage.edit("recipe.toml", "\"tokens\"", "\"completion\"");
    stage.write("data.jsonl", "{\"prompt\": \"ab\\n\", \"completion\": \"cd\"}\n");
    let shown = stage.seedcorn("inspect recipe.toml --set model.source=model.gguf");
    assert_parts(&shown, &["tokens, 3 trained ---\n<|start|>ab\n[[cd<|end|>]]\n"]);
}

#[test]
fn a_merged_model_answers_as_base_and_adapter() {
    let stage = Stage::new();
    let shown = stage.seedcorn("train recipe.toml --set export.merged=\"bf16\" --set model.quantize=\"nf4\"");
    assert_parts(
        &shown,
        &[
            "exit 0\n",
            "merged: run/merged (bfloat16, 1 file, ",
            "read back: max |difference| of the logits ",
            "; within the ",
            "merged into the full weights; into the dequantized ones (nf4",
        ],
    );
    assert!(stage.path("run/merged/model.safetensors").exists());

    let shown =
        stage.seedcorn("merge run/adapter --base model --out merged --dtype f32 --max-shard-size 100KB");
    assert_parts(
        &shown,
        &["exit 0\n----- stdout\nmerged: merged (float32, ", "next: seedcorn generate merged"],
    );
    assert!(stage.path("merged/model.safetensors.index.json").exists());
    let loss = |model: &str| -> f64 {
        let shown = stage.seedcorn(&format!("eval {model} --data data.jsonl --format tokens --json"));
        let line = shown.lines().find(|line| line.starts_with('{')).expect("JSON on stdout");
        serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap()
    };
    let (adapted, merged, base) = (loss("model --adapter run/adapter"), loss("merged"), loss("model"));
    assert!((adapted - merged).abs() < 1e-5, "{adapted} and {merged}");
    assert!((adapted - base).abs() > 1e-3, "training changed something: {adapted} and {base}");
    // One that exists is replaced; the base is not.
    assert_parts(&stage.seedcorn("merge run/adapter --base model --out merged -q"), &["exit 0"]);
    let shown = stage.seedcorn("merge run/adapter --base model --out model");
    assert_parts(
        &shown,
        &["exit 2\n", "`model` is the base model's own folder", "hint: name another folder"],
    );
}

#[test]
fn doctor_finds_what_there_is() {
    let stage = Stage::new();
    stage.write("cache/file", [0; 1024]);
    let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
    command.args(["doctor", "--threads", "1"]).env("SEEDCORN_CACHE", stage.path("cache"));
    command
        .env("SEEDCORN_ISA", "portable")
        .env("HF_TOKEN", "hf_secret")
        .env("HF_ENDPOINT", "http://hub.test/");
    let shown = stage.show(&command.output().unwrap());
    assert_parts(
        &shown,
        &[
            "exit 0\n",
            concat!("version: seedcorn ", env!("CARGO_PKG_VERSION")),
            "threads: 1",
            "instructions: portable",
            "ok    cache: [HERE]/cache, 0.0 MiB",
            "ok    hub: http://hub.test, a token, cache ",
        ],
    );
    assert!(!shown.contains("hf_secret"), "{shown}");
    let lines = shown.lines().skip(2);
    assert!(lines.clone().count() >= 9);
    for line in lines {
        assert!(line.starts_with("ok    ") || line.starts_with("warn  "), "{line}");
    }
    let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
    let shown = stage.show(&command.arg("doctor").env("PATH", "").output().unwrap());
    assert_parts(
        &shown,
        &["exit 0\n", "warn  python: `python3` not found; `pypi:` sources need it", "no token"],
    );
}

/// The default build has no CUDA, on the command line and in a recipe; one with it finds no driver on a machine without.
#[test]
fn cuda_that_is_not_there_is_said_before_anything_starts() {
    let stage = Stage::new();
    let parts: &[&str] = if cfg!(feature = "cuda") {
        &["exit 2\n", "error: device `cuda` ", "hint: "]
    } else {
        &["exit 2\n", "device `cuda` is not in this build: it needs `--features cuda`"]
    };
    assert_parts(&stage.seedcorn("train recipe.toml --device cuda"), parts);
    stage.edit("recipe.toml", "output = ", "device = \"cuda\"\noutput = ");
    let parts: &[&str] =
        if cfg!(feature = "cuda") { parts } else { &["exit 2\n", "`device`", "with `--features cuda`"] };
    assert_parts(&stage.seedcorn("train recipe.toml"), parts);
    assert!(!stage.path("run").exists());
}
