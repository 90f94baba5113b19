//! `config.json` from GGUF metadata.

use serde_json::{Value, json};

use super::error::GgufError;
use super::metadata::{Metadata, required};
use super::names::{Family, ROPE_FREQS};
use super::reader::Header;

/// Builds the configuration that a Hugging Face folder of this model would have.
pub(super) fn build(header: &Header, file: &[u8], family: Family) -> Result<Value, GgufError> {
    let metadata = Metadata::new(header, file);
    let keys = Keys { metadata, architecture: family.name() };
    if let Some(experts @ 1..) = keys.uint("expert_count")? {
        let got = experts.to_string();
        return Err(keys.value_error("expert_count", got, "0: mixtures of experts are not supported"));
    }
    let window = keys.uint("attention.sliding_window")?.filter(|&window| window > 0);
    // GGUF calls Mistral `llama`; only its window tells them apart, and only the window changes the arithmetic.
    let (class, model_type) = match (family, window) {
        (Family::Llama, None) => ("LlamaForCausalLM", "llama"),
        (Family::Llama, Some(_)) => ("MistralForCausalLM", "mistral"),
        (Family::Qwen2, _) => ("Qwen2ForCausalLM", "qwen2"),
        (Family::Qwen3, _) => ("Qwen3ForCausalLM", "qwen3"),
    };
    let hidden = keys.need("embedding_length")?;
    let heads = keys.need("attention.head_count")?;
    let kv_heads = keys.uint("attention.head_count_kv")?.unwrap_or(heads);
    let has = |tensor: &str| header.tensors.iter().any(|t| t.name == tensor);
    let theta = keys.float("rope.freq_base")?.unwrap_or(10_000.0);
    let head_dim = match (keys.uint("attention.key_length")?, keys.uint("rope.dimension_count")?) {
        (Some(dim), _) | (None, Some(dim)) => dim,
        (None, None) => hidden.checked_div(heads).unwrap_or(0),
    };
    let eps = keys.need_float("attention.layer_norm_rms_epsilon")?;
    let id = |name: &str| metadata.uint(&format!("tokenizer.ggml.{name}_token_id"));

    let mut config = json!({
        "architectures": [class], "model_type": model_type,
        "attention_bias": has("blk.0.attn_q.bias"), "attention_dropout": 0.0, "mlp_bias": false,
        "bos_token_id": id("bos")?, "eos_token_id": id("eos")?, "pad_token_id": id("padding")?,
        "head_dim": head_dim, "hidden_act": "silu",
        "hidden_size": hidden, "initializer_range": 0.02,
        "intermediate_size": keys.need("feed_forward_length")?,
        "max_position_embeddings": keys.need("context_length")?,
        "num_attention_heads": heads, "num_hidden_layers": keys.need("block_count")?, "num_key_value_heads": kv_heads,
        "pretraining_tp": 1, "rms_norm_eps": six_digits(eps), "rope_scaling": rope_scaling(&keys, header, theta, head_dim)?,
        "rope_theta": whole_if_possible(theta),
        "tie_word_embeddings": !has("output.weight"), "torch_dtype": "float32", "use_cache": true,
        "vocab_size": vocab_size(header)?,
    });
    if let Some(window) = window {
        config["sliding_window"] = window.into();
    }
    if family != Family::Llama {
        config["use_sliding_window"] = window.is_some().into();
    }
    Ok(config)
}

/// Metadata keys of one architecture, without its prefix.
struct Keys<'a> {
    metadata: Metadata<'a>,
    architecture: &'static str,
}

impl<'a> Keys<'a> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn uint(&self, name: &str) -> Result<Option<u64>, GgufError> {
        self.metadata.uint(&self.key(name))
    }

    fn need(&self, name: &str) -> Result<u64, GgufError> {
        required(&self.key(name), self.uint(name)?)
    }

    fn float(&self, name: &str) -> Result<Option<f64>, GgufError> {
        self.metadata.float(&self.key(name))
    }

    fn need_float(&self, name: &str) -> Result<f64, GgufError> {
        required(&self.key(name), self.float(name)?)
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, GgufError> {
        self.metadata.text(&self.key(name))
    }

    fn value_error(&self, name: &str, got: String, expected: &str) -> GgufError {
        GgufError::KeyValue { key: self.key(name), got, expected: expected.to_owned() }
    }
}

/// Rows of the embedding: some models pad it beyond the tokenizer's tokens.
fn vocab_size(header: &Header) -> Result<usize, GgufError> {
    let embedding = header.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    match embedding.map(|tensor| tensor.shape.as_slice()) {
        Some(&[rows, _]) => Ok(rows),
        _ => Err(GgufError::MissingTensor { tensor: "token_embd.weight" }),
    }
}

/// Rounds to six significant digits: the f32 9.99999974e-06 was 1e-05 in the original configuration.
fn six_digits(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

fn whole_if_possible(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 2_f64.powi(53) { json!(value as i64) } else { json!(value) }
}

fn rope_scaling(keys: &Keys<'_>, header: &Header, theta: f64, head_dim: u64) -> Result<Value, GgufError> {
    if let Some(tensor) = header.tensors.iter().find(|tensor| tensor.name == ROPE_FREQS) {
        let stored = keys.metadata.f32_tensor(tensor).ok_or(GgufError::RopeFrequencies)?;
        return llama3_scaling(&stored, theta, head_dim);
    }
    let factor = || keys.need_float("rope.scaling.factor");
    let original = || keys.need("rope.scaling.original_context_length");
    match keys.text("rope.scaling.type")? {
        None | Some("none") => Ok(Value::Null),
        Some("linear") => Ok(json!({ "rope_type": "linear", "factor": factor()? })),
        Some("yarn") => {
            let original = original()?;
            Ok(
                json!({ "rope_type": "yarn", "factor": factor()?, "original_max_position_embeddings": original }),
            )
        }
        Some(got) => Err(keys.value_error("rope.scaling.type", got.to_owned(), "`none`, `linear` or `yarn`")),
    }
}

/// Finds the parameters of Llama 3's frequency scaling from the factors that llama.cpp's converter made of them.
///
/// Every Llama 3.x uses `low_freq_factor` 1, `high_freq_factor` 4 and 8192 positions; the factor is the largest
/// entry. The factors are computed again and must agree, so that nothing is guessed.
fn llama3_scaling(stored: &[f32], theta: f64, head_dim: u64) -> Result<Value, GgufError> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const ORIGINAL: f64 = 8192.0;
    let factor = f64::from(stored.iter().copied().fold(0.0, f32::max));
    let expected = |i: usize| {
        let wave_length = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head_dim as f64);
        if wave_length < ORIGINAL / HIGH {
            1.0
        } else if wave_length > ORIGINAL / LOW {
            factor
        } else {
            let smooth = (ORIGINAL / wave_length - LOW) / (HIGH - LOW);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let agree = |(i, &stored): (usize, &f32)| (expected(i) / f64::from(stored) - 1.0).abs() < 1e-3;
    if stored.len() as u64 != head_dim / 2 || !stored.iter().enumerate().all(agree) {
        return Err(GgufError::RopeFrequencies);
    }
    Ok(json!({
        "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW, "high_freq_factor": HIGH,
        "original_max_position_embeddings": ORIGINAL as u64,
    }))
}
