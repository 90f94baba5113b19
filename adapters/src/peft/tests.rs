//! Folders of peft 0.21 read as they are; ours read back as they were; broken ones give one named error each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Map, Value, json};

use super::{CONFIG_FILE, MODEL_FILE, PeftConfig, read, write};
use crate::lora::{LoraConfig, LoraWeights};
use crate::target::{LinearModule, Targets};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/peft").join(name)
}

fn module(name: &str, in_features: usize, out_features: usize) -> LinearModule {
    LinearModule { name: name.to_owned(), in_features, out_features }
}

fn smollm() -> Vec<LinearModule> {
    vec![
        module("model.layers.0.self_attn.q_proj", 576, 576),
        module("model.layers.0.self_attn.k_proj", 576, 192),
        module("model.layers.0.self_attn.v_proj", 576, 192),
        module("lm_head", 576, 49152),
    ]
}

fn small() -> Vec<LinearModule> {
    vec![module("m.0.q_proj", 3, 2), module("m.1.q_proj", 3, 2), module("m.1.up_proj", 3, 5)]
}

fn config() -> PeftConfig {
    let lora = LoraConfig {
        rank: 2,
        alpha: 4.0,
        dropout: 0.1,
        rslora: false,
        targets: Targets::AllLinear,
        exclude: Vec::new(),
        rank_pattern: BTreeMap::from([("1.q_proj".to_owned(), 1)]),
        alpha_pattern: BTreeMap::new(),
    };
    PeftConfig { lora, base_model: Some("org/base".to_owned()), revision: None }
}

fn weights(config: &PeftConfig) -> Vec<LoraWeights> {
    let plan = config.lora.plan(&small()).unwrap();
    plan.iter()
        .map(|planned| {
            let mut layer = LoraWeights::init(planned, 5);
            layer.b.iter_mut().enumerate().for_each(|(i, b)| *b = i as f32 * 0.5 - 1.0);
            layer
        })
        .collect()
}

#[test]
fn reads_what_peft_wrote() {
    let expected: Value = serde_json::from_slice(&fs_err::read(fixture("expected.json")).unwrap()).unwrap();
    for (name, scale) in [("adapter_final_lora", 2.0), ("adapter_final_rslora", 4.0)] {
        let adapter = read(&fixture(name), &smollm()).unwrap();
        assert_eq!(adapter.config.base_model.as_deref(), Some("SmolLM2-135M-Instruct"));
        let names: Vec<_> = adapter.weights.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj"]);
        for layer in &adapter.weights {
            assert_eq!((layer.rank, layer.scale), (4, scale));
            for (factor, values) in [("A", &layer.a), ("B", &layer.b)] {
                let case = &expected[name][format!("base_model.model.{}.lora_{factor}.weight", layer.name)];
                let sum: f64 = values.iter().map(|x| f64::from(*x)).sum();
                assert!((sum - case["sum"].as_f64().unwrap()).abs() < 1e-9, "{name} {factor}");
                assert_eq!(*values.last().unwrap(), case["last"].as_f64().unwrap() as f32);
            }
        }
        let again = adapter.config.lora.plan(&smollm()).unwrap();
        assert_eq!(again.len(), 2, "the configuration is narrowed to the layers in the file");
    }
}

#[test]
fn writes_what_it_reads_and_the_same_bytes_each_time() {
    let root = tempfile::tempdir().unwrap();
    let (first, second) = (root.path().join("a"), root.path().join("deep/b"));
    let written = weights(&config());
    write(&first, &config(), &written, &small()).unwrap();
    write(&second, &config(), &written, &small()).unwrap();
    write(&second, &config(), &written, &small()).unwrap();
    for file in [CONFIG_FILE, MODEL_FILE] {
        assert_eq!(fs_err::read(first.join(file)).unwrap(), fs_err::read(second.join(file)).unwrap());
    }
    let adapter = read(&first, &small()).unwrap();
    assert_eq!(adapter.weights, written);
    assert_eq!(adapter.config.lora.rank_pattern, config().lora.rank_pattern);
}

#[test]
fn config_text_is_stable() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a");
    write(&folder, &config(), &weights(&config()), &small()).unwrap();
    let text = fs_err::read_to_string(folder.join(CONFIG_FILE)).unwrap();
    let expected = r#"{
  "alpha_pattern": {},
  "base_model_name_or_path": "org/base",
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "layers_pattern": null,
  "layers_to_transform": null,
  "lora_alpha": 4,
  "lora_dropout": 0.1,
  "modules_to_save": null,
  "peft_type": "LORA",
  "r": 2,
  "rank_pattern": {
    "1.q_proj": 1
  },
  "revision": null,
  "target_modules": [
    "q_proj",
    "up_proj"
  ],
  "task_type": "CAUSAL_LM",
  "use_dora": false,
  "use_rslora": false
}"#;
    assert_eq!(text, expected);
    let bytes = fs_err::read(folder.join(MODEL_FILE)).unwrap();
    let header = String::from_utf8_lossy(&bytes[8..60]).into_owned();
    assert!(header.starts_with(r#"{"__metadata__":{"format":"pt"}"#), "{header}");
}

#[test]
fn settings_that_cannot_be_honoured_are_named() {
    let fault = |key: &str, value: Value| {
        let mut map = Map::new();
        map.insert("peft_type".to_owned(), json!("LORA"));
        map.insert("target_modules".to_owned(), json!(["q_proj"]));
        assert!(PeftConfig::from_json(&map).is_ok(), "the documented minimum loads");
        map.insert(key.to_owned(), value);
        PeftConfig::from_json(&map).unwrap_err().to_string()
    };
    for (key, value) in [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["lm_head"])),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("layer_replication", json!([[0, 2]])),
        ("trainable_token_indices", json!([1, 2])),
        ("target_parameters", json!(["experts.w"])),
        ("init_lora_weights", json!("pissa")),
        ("peft_type", json!("IA3")),
        ("some_new_switch", json!(true)),
    ] {
        let message = fault(key, value.clone());
        assert!(message.starts_with(&format!("`{key}` = {value} in")), "{message}");
    }
    assert_eq!(fault("r", json!(0)), "adapter `rank` is 0, expected 1 to 65536");
    assert_eq!(fault("r", json!("x")), "adapter `r` is \"x\", expected a whole number");
    assert_eq!(fault("target_modules", json!(null)), "`target_modules` is missing in `adapter_config.json`");
}

/// Writes a folder of one-element tensors and returns the message of reading it.
fn fault_of(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> String {
    let root = tempfile::tempdir().unwrap();
    let cfg = json!({"peft_type": "LORA", "target_modules": ["q_proj"], "r": 1});
    put(root.path(), CONFIG_FILE, cfg.to_string().as_bytes());
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    put(root.path(), MODEL_FILE, &serialize(views, None).unwrap());
    match read(root.path(), &small()) {
        Ok(adapter) => format!("read {:?}", adapter.weights[0].a),
        Err(fault) => fault.to_string(),
    }
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    fs_err::write(folder.join(name), bytes).unwrap();
}

const A: &str = "base_model.model.m.0.q_proj.lora_A.weight";
const B: &str = "base_model.model.m.0.q_proj.lora_B.weight";

#[test]
fn broken_tensors_are_named() {
    let zeros =
        |name, shape: [usize; 2]| (name, Dtype::F32, shape.to_vec(), vec![0; 4 * shape[0] * shape[1]]);
    assert_eq!(fault_of(&[zeros(A, [1, 3])]), format!("tensor `{B}` is missing"));
    assert_eq!(
        fault_of(&[zeros(A, [1, 4]), zeros(B, [2, 1])]),
        format!("tensor `{A}` has shape [1, 4], expected [1, 3]")
    );
    assert_eq!(
        fault_of(&[zeros(A, [1, 3]), zeros(B, [2, 2])]),
        format!("tensor `{B}` has shape [2, 2], expected [2, 1]")
    );
    assert_eq!(
        fault_of(&[zeros("base_model.model.m.7.q_proj.lora_A.weight", [1, 3])]),
        "the adapter has `m.7.q_proj`, the model has no such linear layer"
    );
    assert_eq!(
        fault_of(&[zeros("base_model.model.m.1.up_proj.lora_A.weight", [1, 3])]),
        "the adapter has tensors for `m.1.up_proj`, which `target_modules` does not select"
    );
    let magnitude = "base_model.model.m.0.q_proj.lora_magnitude_vector";
    assert!(
        fault_of(&[zeros(magnitude, [1, 3])]).starts_with(&format!("tensor `{magnitude}` is not a LoRA"))
    );
    let mut nan = zeros(A, [1, 3]);
    nan.3[8..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_eq!(fault_of(&[nan, zeros(B, [2, 1])]), format!("tensor `{A}` is not finite at element 2"));
    let whole = (A, Dtype::I32, vec![1, 3], vec![0; 12]);
    assert_eq!(
        fault_of(&[whole, zeros(B, [2, 1])]),
        format!("tensor `{A}` has dtype I32; supported: F32, F16, BF16")
    );
}

#[test]
fn half_precision_is_read() {
    let b = (B, Dtype::F32, vec![2, 1], vec![0; 8]);
    // 1.0, -2.0 and 0.5 in both formats.
    let bf16 = [0x3f80_u16, 0xc000, 0x3f00].map(u16::to_le_bytes).concat();
    let f16 = [0x3c00_u16, 0xc000, 0x3800].map(u16::to_le_bytes).concat();
    for (dtype, data) in [(Dtype::BF16, bf16), (Dtype::F16, f16)] {
        assert_eq!(fault_of(&[(A, dtype, vec![1, 3], data), b.clone()]), "read [1.0, -2.0, 0.5]");
    }
}

#[test]
fn broken_files_are_errors() {
    let root = tempfile::tempdir().unwrap();
    assert!(read(root.path(), &small()).is_err());
    put(root.path(), CONFIG_FILE, b"[1]");
    assert!(read(root.path(), &small()).unwrap_err().to_string().ends_with("is not a JSON object"));
    put(root.path(), CONFIG_FILE, br#"{"peft_type": "LORA", "target_modules": ["q_proj"]}"#);
    for bytes in
        [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"\x02\0\0\0\0\0\0\0[]", b"\x09\0\0\0\0\0\0\0{}"]
    {
        put(root.path(), MODEL_FILE, bytes);
        let message = read(root.path(), &small()).unwrap_err().to_string();
        assert!(message.ends_with("is not a valid safetensors file"), "{message}");
    }
}

#[test]
fn inconsistent_weights_are_not_written() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a");
    let fault = |edit: &dyn Fn(&mut LoraWeights)| {
        let mut all = weights(&config());
        edit(&mut all[0]);
        let fault = write(&folder, &config(), &all, &small()).unwrap_err().to_string();
        assert!(!folder.exists());
        fault
    };
    assert!(fault(&|layer| layer.scale = 3.0).contains("has rank 2 and scale 3"));
    assert!(fault(&|layer| layer.b[1] = f32::INFINITY).contains("is not finite at element 1"));
    assert!(fault(&|layer| layer.a.truncate(1)).contains("has shape"));
    assert!(fault(&|layer| layer.name.push('x')).contains("no such linear layer"));
}
