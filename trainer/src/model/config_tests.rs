//! Configurations of real writers give one spec in both dialects; broken ones give one named error each.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::config::ConfigError;
use super::family::{LayerParam, Linear, Param};
use super::spec::{BnbKind, HeadSpec, ModelSpec, RopeScaling, RopeSpec};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/config").join(name)
}

fn llama() -> Value {
    serde_json::from_str(&fs_err::read_to_string(fixture("llama.json")).unwrap()).unwrap()
}

/// The message for `llama.json` with one key replaced; `Value::Null` removes it.
fn error(key: &str, value: Value) -> String {
    let mut config = llama();
    match value {
        Value::Null => drop(config.as_object_mut().unwrap().remove(key)),
        value => config[key] = value,
    }
    ModelSpec::from_json(&config).unwrap_err().to_string()
}

#[test]
fn both_dialects_give_one_spec() {
    for name in ["llama", "llama-tied", "mistral-swa", "qwen2", "qwen3"] {
        let new = ModelSpec::read(&fixture(&format!("{name}.json"))).unwrap();
        let old = ModelSpec::read(&fixture(&format!("{name}.v4.json"))).unwrap();
        assert_eq!(new, old, "{name}");
        assert_eq!(new.rope.scaling, RopeScaling::None);
    }
}

#[test]
fn families_differ_where_transformers_does() {
    let read = |name: &str| ModelSpec::read(&fixture(name)).unwrap();
    let (llama, tied, mistral) = (read("llama.json"), read("llama-tied.json"), read("mistral-swa.json"));
    let (qwen2, qwen3) = (read("qwen2.json"), read("qwen3.json"));
    let biases = |spec: &ModelSpec| [spec.qkv_bias, spec.o_bias, spec.mlp_bias];
    assert_eq!(biases(&llama), [false; 3]);
    assert_eq!(biases(&tied), [true; 3]);
    assert_eq!(biases(&mistral), [false; 3]);
    assert_eq!(biases(&qwen2), [true, false, false]);
    assert_eq!(biases(&qwen3), [false; 3]);
    assert_eq!([llama.qk_norm, qwen2.qk_norm, qwen3.qk_norm], [false, false, true]);
    assert_eq!(mistral.layers.iter().map(|l| l.window).collect::<Vec<_>>(), [Some(8); 2]);
    assert_eq!(qwen2.layers.iter().map(|l| l.window).collect::<Vec<_>>(), [None; 2]);
    assert_eq!(qwen2.heads, HeadSpec { num_heads: 4, num_kv_heads: 2, head_dim: 16 });
    assert_eq!(qwen3.heads, HeadSpec { num_heads: 4, num_kv_heads: 2, head_dim: 32 });
    assert_eq!((llama.bos_token_id, llama.pad_token_id), (Some(1), Some(0)));
    assert_eq!(llama.eos_token_ids, [2]);
    assert_eq!(qwen2.rope.theta, 1_000_000.0);
}

#[test]
fn parameters_are_the_tensors_of_the_checkpoint() {
    // Counts and names as in the safetensors headers written by transformers for these configurations.
    let count = |name: &str| ModelSpec::read(&fixture(name)).unwrap().parameters().len();
    assert_eq!([count("llama.json"), count("llama-tied.json")], [21, 34]);
    assert_eq!([count("qwen2.json"), count("qwen3.json")], [26, 24]);
    let spec = ModelSpec::read(&fixture("qwen3.json")).unwrap();
    let shape = |name: &str| {
        let all = spec.parameters();
        all.into_iter().find(|(param, _)| spec.tensor_name(*param) == name).map(|(_, shape)| shape)
    };
    assert_eq!(shape("model.embed_tokens.weight"), Some(vec![256, 64]));
    assert_eq!(shape("model.layers.1.self_attn.q_proj.weight"), Some(vec![128, 64]));
    assert_eq!(shape("model.layers.0.self_attn.k_norm.weight"), Some(vec![32]));
    assert_eq!(shape("model.layers.0.mlp.down_proj.weight"), Some(vec![64, 96]));
    assert_eq!(shape("lm_head.weight"), None);
    let name = spec.tensor_name(Param::Layer(0, LayerParam::Bias(Linear::O)));
    assert_eq!(name, "model.layers.0.self_attn.o_proj.bias");
    let modules = spec.linear_modules();
    assert_eq!(modules.len(), 2 * 7 + 1);
    assert_eq!(modules[14].name, "lm_head");
    assert_eq!((modules[3].in_features, modules[3].out_features), (128, 64));
}

#[test]
fn windows_of_qwen() {
    let windows = |edit: Value| {
        let mut config: Value =
            serde_json::from_str(&fs_err::read_to_string(fixture("qwen2.json")).unwrap()).unwrap();
        config.as_object_mut().unwrap().remove("layer_types");
        for (key, value) in edit.as_object().unwrap() {
            config[key] = value.clone();
        }
        let spec = ModelSpec::from_json(&config).unwrap();
        spec.layers.iter().map(|layer| layer.window).collect::<Vec<_>>()
    };
    let on = json!({"use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1});
    assert_eq!(windows(on), [None, Some(5)]);
    let off = json!({"use_sliding_window": false, "sliding_window": 5, "max_window_layers": 0});
    assert_eq!(windows(off), [None, None]);
    let types = json!({"use_sliding_window": true, "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention"]});
    assert_eq!(windows(types), [Some(5), None]);
}

#[test]
fn rope_frequencies_equal_the_published_formulas() {
    let cases: Value =
        serde_json::from_str(&fs_err::read_to_string(fixture("rope_frequencies.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let mut config = llama();
        config["rope_parameters"] = case["rope_parameters"].clone();
        let rope = ModelSpec::from_json(&config).unwrap().rope;
        let head_dim = case["head_dim"].as_u64().unwrap() as usize;
        let expected: Vec<f32> =
            case["inv_freq"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let got = rope.inv_freq(head_dim);
        assert_eq!(got.len(), expected.len());
        for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
            // Two roundings of the power may differ by one unit; the ramp subtracts, so allow four.
            assert!((a - b).abs() <= 4.0 * f32::EPSILON * b, "{} [{i}]: {a} vs {b}", case["rope_parameters"]);
        }
    }
}

#[test]
fn old_rope_scaling_reads_like_the_new() {
    let mut config = llama();
    config.as_object_mut().unwrap().remove("rope_parameters");
    config["rope_theta"] = json!(500000.0);
    config["rope_scaling"] = json!({"type": "linear", "factor": 4});
    let rope = ModelSpec::from_json(&config).unwrap().rope;
    assert_eq!(rope, RopeSpec { theta: 500000.0, scaling: RopeScaling::Linear { factor: 4.0 } });
    config["rope_scaling"] =
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0});
    let RopeScaling::Llama3 { original_max_position_embeddings, .. } =
        ModelSpec::from_json(&config).unwrap().rope.scaling
    else {
        panic!("not llama3");
    };
    assert_eq!(original_max_position_embeddings, 128, "defaults to `max_position_embeddings`");
}

#[test]
fn unsupported_things_are_named() {
    assert_eq!(
        ModelSpec::read(&fixture("gemma2.json")).unwrap_err().to_string(),
        "unknown `model_type` `gemma2`; supported: `llama`, `mistral`, `qwen2`, `qwen3`"
    );
    assert_eq!(
        error("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
        "rope type `yarn` is not supported; supported: `default`, `linear`, `llama3`"
    );
    assert_eq!(
        error("hidden_act", json!("gelu")),
        "`hidden_act` = `\"gelu\"` in `config.json` is not supported; supported: `silu`"
    );
    assert_eq!(
        error("quantization_config", json!({"quant_method": "gptq", "bits": 4})),
        "quantization method `gptq` is not supported; supported: `bitsandbytes`"
    );
    assert_eq!(
        error("quantization_config", json!({"quant_method": "bitsandbytes", "load_in_4bit": true})),
        "`quantization_config.bnb_4bit_quant_type` = null in `config.json` is not supported; supported: \"nf4\""
    );
    assert_eq!(
        error("partial_rotary_factor", json!(0.5)),
        "`partial_rotary_factor` = `0.5` in `config.json` is not supported; supported: 1.0"
    );
}

#[test]
fn heads_that_do_not_divide() {
    let mut config = llama();
    config.as_object_mut().unwrap().remove("head_dim");
    config["num_attention_heads"] = json!(6);
    let fault = ModelSpec::from_json(&config).unwrap_err();
    assert_eq!(fault.to_string(), "`hidden_size` (64) is not a multiple of `num_attention_heads` (6)");
    assert!(matches!(fault, ConfigError::HeadsDoNotDivide { hidden_size: 64, num_heads: 6 }));
    assert_eq!(
        error("num_key_value_heads", json!(3)),
        "`num_attention_heads` (4) is not a multiple of `num_key_value_heads` (3)"
    );
    assert_eq!(error("head_dim", json!(15)), "`head_dim` (15) is odd; rotary embeddings need pairs");
}

#[test]
fn absurd_numbers_are_errors() {
    assert_eq!(error("hidden_size", Value::Null), "`hidden_size` is missing in `config.json`");
    assert_eq!(
        error("hidden_size", json!(0)),
        "`hidden_size` in `config.json` is 0, outside 1 to 2147483648"
    );
    assert_eq!(
        error("vocab_size", json!(-5)),
        "`vocab_size` in `config.json` is -5, outside 1 to 2147483648"
    );
    assert_eq!(
        error("num_hidden_layers", json!(4_000_000_000_u64)),
        "`num_hidden_layers` in `config.json` is 4000000000, outside 1 to 4096"
    );
    assert_eq!(
        error("hidden_size", json!(64.0)),
        "`hidden_size` in `config.json` must be an integer, found `64.0`"
    );
    assert_eq!(
        error("hidden_size", json!("64")),
        "`hidden_size` in `config.json` must be an integer, found `\"64\"`"
    );
    assert_eq!(
        error("rms_norm_eps", json!(-1e-6)),
        "`rms_norm_eps` in `config.json` is -0.000001, expected a finite number above 0"
    );
    assert_eq!(
        error("rope_parameters", json!({"rope_theta": 1e300})).split(" is ").next(),
        Some("`rope_parameters.rope_theta` in `config.json`")
    );
}

#[test]
fn bitsandbytes_is_read() {
    let spec = ModelSpec::read(&fixture("llama-bnb-nf4.json")).unwrap();
    let bnb = spec.quantization.unwrap();
    assert_eq!((bnb.kind, bnb.double_quant, bnb.quant_storage.as_str()), (BnbKind::Nf4, true, "uint8"));
    assert!(bnb.skip_modules.is_empty());
}

#[test]
fn token_ids() {
    let mut config = llama();
    config["eos_token_id"] = json!([5, 7]);
    config["pad_token_id"] = json!(-1);
    config["bos_token_id"] = Value::Null;
    let spec = ModelSpec::from_json(&config).unwrap();
    assert_eq!((spec.bos_token_id, spec.eos_token_ids, spec.pad_token_id), (None, vec![5, 7], None));
    assert_eq!(
        error("eos_token_id", json!([1, "x"])),
        "`eos_token_id` in `config.json` must be a token id or a list of token ids, found a list"
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_u64..200).prop_map(Value::from),
        "[a-z0-9_]{0,8}".prop_map(Value::from),
        prop::collection::vec(any::<i16>(), 0..4).prop_map(Value::from),
        Just(
            json!({"rope_type": "llama3", "factor": 1e308, "low_freq_factor": 1e-300, "high_freq_factor": 2})
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Any value under any key is read or refused, never a panic; what is read can be used.
    #[test]
    fn no_value_panics(at in 0_usize..40, value in any_json(), at_two in 0_usize..40, value_two in any_json()) {
        let mut config = llama();
        let mut keys: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
        keys.extend(["rope_scaling", "rope_theta", "quantization_config", "layer_types"].map(str::to_owned));
        config[&keys[at % keys.len()]] = value;
        config[&keys[at_two % keys.len()]] = value_two;
        if let Ok(spec) = ModelSpec::from_json(&config) {
            prop_assert_eq!(spec.layers.len(), spec.num_layers);
            prop_assert_eq!(spec.rope.inv_freq(spec.heads.head_dim).len() * 2, spec.heads.head_dim);
        }
    }
}
