//! `config.json` of a Hugging Face model folder, read as hostile input into a [`ModelSpec`].
//!
//! Both dialects are read: `rope_parameters` of transformers 5, and `rope_theta` with `rope_scaling` before
//! it. Keys that no supported architecture uses are ignored, as transformers does; a key that would change
//! the arithmetic in a way not implemented here is an error that names it.

use std::path::Path;

use serde_json::{Map, Value};

pub use super::config_error::ConfigError;
use super::family::{self, Rules};
use super::fields::{Fields, MAX_SIZE, type_name};
use super::spec::{Activation, BnbConfig, BnbKind, HeadSpec, ModelSpec, RopeScaling, RopeSpec};

/// Most decoder blocks; ten times the deepest published model.
const MAX_LAYERS: u64 = 4096;
/// Most heads, and the widest head.
const MAX_HEADS: u64 = 1 << 16;
/// Largest `config.json` that is read, bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

impl ModelSpec {
    /// Reads `config.json` at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = fs_err::metadata(path)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned(), bytes, limit: MAX_FILE_BYTES });
        }
        Self::from_json(&serde_json::from_str(&fs_err::read_to_string(path)?)?)
    }

    /// Derives the architecture from a parsed `config.json`.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let map = config.as_object().ok_or(ConfigError::NotAnObject { found: type_name(config) })?;
        let fields = Fields { map, prefix: "" };
        let model_type = fields.text("model_type")?.ok_or_else(|| fields.missing("model_type"))?.to_owned();
        family::check(&model_type)?;
        let num_layers = fields.required("num_hidden_layers", MAX_LAYERS)?;
        let rules = family::rules(&model_type, &fields, num_layers)?;
        let hidden_size = fields.required("hidden_size", MAX_SIZE)?;
        let max_position_embeddings = fields.required("max_position_embeddings", MAX_SIZE)?;
        let eps = fields.number("rms_norm_eps")?.unwrap_or(1e-6);
        Ok(Self {
            model_type,
            hidden_size,
            intermediate_size: fields.required("intermediate_size", MAX_SIZE)?,
            num_layers,
            vocab_size: fields.required("vocab_size", MAX_SIZE)?,
            max_position_embeddings,
            heads: heads(&fields, &rules, hidden_size)?,
            rms_norm_eps: fields.above("rms_norm_eps", eps, 0.0)? as f32,
            rope: rope(&fields, max_position_embeddings)?,
            layers: rules.layers,
            tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
            qkv_bias: rules.qkv_bias,
            o_bias: rules.o_bias,
            mlp_bias: rules.mlp_bias,
            qk_norm: rules.qk_norm,
            activation: activation(&fields)?,
            bos_token_id: fields.token("bos_token_id")?,
            eos_token_ids: fields.tokens("eos_token_id")?,
            pad_token_id: fields.token("pad_token_id")?,
            quantization: quantization(&fields)?,
        })
    }
}

fn heads(fields: &Fields<'_>, rules: &Rules, hidden_size: usize) -> Result<HeadSpec, ConfigError> {
    let num_heads = fields.required("num_attention_heads", MAX_HEADS)?;
    if !rules.kv_heads_optional && !fields.map.contains_key("num_key_value_heads") {
        return Err(fields.missing("num_key_value_heads"));
    }
    let num_kv_heads = fields.size("num_key_value_heads", MAX_HEADS)?.unwrap_or(num_heads);
    if !num_heads.is_multiple_of(num_kv_heads) {
        return Err(ConfigError::KvHeadsDoNotDivide { num_heads, num_kv_heads });
    }
    let head_dim = match fields.size("head_dim", MAX_HEADS)?.or(rules.default_head_dim) {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
        None => return Err(ConfigError::HeadsDoNotDivide { hidden_size, num_heads }),
    };
    if !head_dim.is_multiple_of(2) {
        return Err(ConfigError::OddHeadDim { head_dim });
    }
    if (num_heads * head_dim) as u64 > MAX_SIZE || head_dim as u64 > MAX_HEADS {
        let value = format!("{head_dim} ({num_heads} heads)");
        return Err(ConfigError::OutOfRange { key: "head_dim".to_owned(), value, min: 2, max: MAX_HEADS });
    }
    Ok(HeadSpec { num_heads, num_kv_heads, head_dim })
}

fn activation(fields: &Fields<'_>) -> Result<Activation, ConfigError> {
    match fields.text("hidden_act")?.unwrap_or("silu") {
        "silu" | "swish" => Ok(Activation::SwiGlu),
        _ => Err(fields.unsupported("hidden_act", "`silu`")),
    }
}

/// Reads the rotary settings of either dialect; as in transformers, a non-empty `rope_scaling` wins over
/// `rope_parameters`, and `rope_theta` inside it over the one outside.
fn rope(fields: &Fields<'_>, max_positions: usize) -> Result<RopeSpec, ConfigError> {
    let old = fields.object("rope_scaling")?.filter(|scaling| !scaling.map.is_empty());
    let new = fields.object("rope_parameters")?;
    let empty = Map::new();
    let rope = old.or(new).unwrap_or(Fields { map: &empty, prefix: "rope_parameters." });
    let theta = match rope.number("rope_theta")? {
        Some(theta) => rope.above("rope_theta", theta, 0.0)?,
        None => fields.above("rope_theta", fields.number("rope_theta")?.unwrap_or(10000.0), 0.0)?,
    };
    for (place, nested) in [(&rope, "full_attention"), (&rope, "sliding_attention")] {
        if place.map.contains_key(nested) {
            return Err(place.unsupported(nested, "one set of rope parameters for all layers"));
        }
    }
    for place in [&rope, fields] {
        if place.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(place.unsupported("partial_rotary_factor", "1.0"));
        }
    }
    let rope_type = match rope.text("rope_type")? {
        Some(rope_type) => rope_type,
        None => rope.text("type")?.unwrap_or("default"),
    };
    let scaling = match rope_type {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: rope.positive("factor")? },
        "llama3" => llama3(fields, &rope, max_positions)?,
        _ => return Err(ConfigError::UnsupportedRope { rope_type: rope_type.to_owned() }),
    };
    Ok(RopeSpec { theta, scaling })
}

fn llama3(fields: &Fields<'_>, rope: &Fields<'_>, max_positions: usize) -> Result<RopeScaling, ConfigError> {
    const KEY: &str = "original_max_position_embeddings";
    let (low, high) = (rope.positive("low_freq_factor")?, rope.positive("high_freq_factor")?);
    if high <= low {
        return Err(ConfigError::RopeFactorsCross { low, high });
    }
    let original = match fields.size(KEY, MAX_SIZE)? {
        Some(original) => original,
        None => rope.size(KEY, MAX_SIZE)?.unwrap_or(max_positions),
    };
    Ok(RopeScaling::Llama3 {
        factor: rope.positive("factor")?,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original,
    })
}

/// Reads `quantization_config`. `llm_int8_threshold` is not read: it splits outlier columns off while
/// bitsandbytes computes, and changes nothing in the stored weights.
fn quantization(fields: &Fields<'_>) -> Result<Option<BnbConfig>, ConfigError> {
    let Some(config) = fields.object("quantization_config")? else { return Ok(None) };
    let four = config.flag("load_in_4bit", false)?;
    let eight = config.flag("load_in_8bit", false)?;
    let method = match config.text("quant_method")? {
        None if four || eight => "bitsandbytes",
        None => return Err(config.missing("quant_method")),
        Some(method) => method,
    };
    if !matches!(method, "bitsandbytes" | "bitsandbytes_4bit" | "bitsandbytes_8bit") {
        return Err(ConfigError::UnsupportedQuantization { method: method.to_owned() });
    }
    // transformers' own default is fp4.
    let kind = match (four, eight, config.text("bnb_4bit_quant_type")?.unwrap_or("fp4")) {
        (true, false, "nf4") => BnbKind::Nf4,
        (false, true, _) => BnbKind::Int8,
        (true, false, _) => return Err(config.unsupported("bnb_4bit_quant_type", "\"nf4\"")),
        _ => return Err(config.unsupported("load_in_4bit", "one of `load_in_4bit` and `load_in_8bit`")),
    };
    Ok(Some(BnbConfig {
        kind,
        double_quant: config.flag("bnb_4bit_use_double_quant", false)?,
        compute_dtype: config.text("bnb_4bit_compute_dtype")?.unwrap_or("float32").to_owned(),
        quant_storage: config.text("bnb_4bit_quant_storage")?.unwrap_or("uint8").to_owned(),
        skip_modules: config.texts("llm_int8_skip_modules")?,
    }))
}
