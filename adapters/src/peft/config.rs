//! `adapter_config.json`: which settings are read, written and refused.
//!
//! Source: huggingface/peft `config.py`, `tuners/lora/config.py` (0.21.2).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::error::AdapterError;
use crate::lora::LoraConfig;
use crate::target::Targets;

/// A LoRA configuration and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftConfig {
    /// Ranks, scales and targets.
    pub lora: LoraConfig,
    /// `base_model_name_or_path`.
    pub base_model: Option<String>,
    /// `revision` of the base model.
    pub revision: Option<String>,
}

/// Keys that say nothing about the arithmetic of a loaded adapter.
const IGNORED: [&str; 13] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Keys that are read.
const READ: [&str; 12] = [
    "alpha_pattern",
    "exclude_modules",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "task_type",
    "use_rslora",
    "bias",
];

impl PeftConfig {
    /// Reads a parsed `adapter_config.json`; absent keys mean what they mean in PEFT.
    ///
    /// # Errors
    /// A wrong type, and every setting that cannot be honoured: see `docs/adapters.md`.
    pub fn from_json(map: &Map<String, Value>) -> Result<Self, AdapterError> {
        refuse(map)?;
        let targets = match get(map, "target_modules") {
            None => return Err(AdapterError::MissingKey { key: "target_modules" }),
            Some(Value::String(text)) => Targets::from_text(text),
            Some(_) => Targets::List(texts(map, "target_modules")?),
        };
        let exclude = match get(map, "exclude_modules") {
            // A single string is a pattern in PEFT; the group makes it one in a list of ours.
            Some(Value::String(pattern)) => vec![format!("(?:{pattern})")],
            _ => texts(map, "exclude_modules")?,
        };
        let lora = LoraConfig {
            rank: size(map, "r")?.unwrap_or(8),
            alpha: number(map, "lora_alpha")?.unwrap_or(8.0),
            dropout: number(map, "lora_dropout")?.unwrap_or(0.0) as f32,
            rslora: flag(map, "use_rslora")?,
            targets,
            exclude,
            rank_pattern: pattern(map, "rank_pattern", |value| value.as_u64().map(|n| n as usize))?,
            alpha_pattern: pattern(map, "alpha_pattern", Value::as_f64)?,
        };
        lora.validate()?;
        let base_model = text(map, "base_model_name_or_path")?.map(str::to_owned);
        Ok(Self { lora, base_model, revision: text(map, "revision")?.map(str::to_owned) })
    }

    /// Writes the well-known keys, sorted (older PEFT warns of others); `target_modules` as given.
    pub(super) fn to_json(&self, target_modules: &[String]) -> Value {
        let whole = |x: f64| if x.fract() == 0.0 && x < 1e15 { json!(x as u64) } else { json!(x) };
        let lora = &self.lora;
        let alphas: Map<_, _> = lora.alpha_pattern.iter().map(|(k, v)| (k.clone(), whole(*v))).collect();
        // The shortest decimal that reads back as the same f32, as Python prints it: 0.1, not 0.10000000149.
        let dropout: f64 = lora.dropout.to_string().parse().unwrap_or(f64::from(lora.dropout));
        json!({
            "alpha_pattern": alphas,
            "base_model_name_or_path": self.base_model,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": null,
            "lora_alpha": whole(lora.alpha),
            "lora_dropout": dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": lora.rank,
            "rank_pattern": lora.rank_pattern,
            "revision": self.revision,
            "target_modules": target_modules,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": lora.rslora,
        })
    }
}

/// Refuses what cannot be honoured. A key that is not known may only hold a value that switches nothing on.
fn refuse(map: &Map<String, Value>) -> Result<(), AdapterError> {
    let refused = |key: &str, supported| {
        let value = shortened(&map[key]);
        Err(AdapterError::UnsupportedSetting { key: key.to_owned(), value, supported })
    };
    match get(map, "peft_type") {
        None => return Err(AdapterError::MissingKey { key: "peft_type" }),
        Some(Value::String(kind)) if kind == "LORA" => {}
        Some(_) => return refused("peft_type", "\"LORA\""),
    }
    if get(map, "task_type").is_some_and(|task| task != "CAUSAL_LM") {
        return refused("task_type", "\"CAUSAL_LM\"");
    }
    if get(map, "bias").is_some_and(|bias| bias != "none") {
        return refused("bias", "\"none\"");
    }
    // The others (pissa, olora, corda, loftq, lora_ga) take a part out of the base, which A and B alone
    // then do not put back.
    const INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];
    match get(map, "init_lora_weights") {
        None | Some(Value::Bool(_)) => {}
        Some(Value::String(init)) if INITS.contains(&init.as_str()) => {}
        Some(_) => return refused("init_lora_weights", "true, \"gaussian\", \"eva\", \"orthogonal\""),
    }
    for (key, value) in map {
        if !READ.contains(&key.as_str()) && !IGNORED.contains(&key.as_str()) && !is_off(value) {
            return refused(key, "null or off");
        }
    }
    Ok(())
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 { text } else { text.chars().take(77).chain("...".chars()).collect() }
}

fn get<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

fn typed<'a, T>(
    map: &'a Map<String, Value>,
    key: &'static str,
    expected: &'static str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, AdapterError> {
    let Some(value) = get(map, key) else { return Ok(None) };
    let wrong = || AdapterError::BadValue { key, value: shortened(value), expected };
    read(value).map(Some).ok_or_else(wrong)
}

fn text<'a>(map: &'a Map<String, Value>, key: &'static str) -> Result<Option<&'a str>, AdapterError> {
    typed(map, key, "a string", Value::as_str)
}

fn flag(map: &Map<String, Value>, key: &'static str) -> Result<bool, AdapterError> {
    Ok(typed(map, key, "true or false", Value::as_bool)?.unwrap_or(false))
}

fn number(map: &Map<String, Value>, key: &'static str) -> Result<Option<f64>, AdapterError> {
    typed(map, key, "a number", Value::as_f64)
}

fn size(map: &Map<String, Value>, key: &'static str) -> Result<Option<usize>, AdapterError> {
    typed(map, key, "a whole number", |value| value.as_u64().map(|n| n as usize))
}

fn texts(map: &Map<String, Value>, key: &'static str) -> Result<Vec<String>, AdapterError> {
    let read = |value: &Value| {
        value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    };
    Ok(typed(map, key, "a list of strings", read)?.unwrap_or_default())
}

fn pattern<T>(
    map: &Map<String, Value>,
    key: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>, AdapterError> {
    let all = |value: &Value| -> Option<BTreeMap<String, T>> {
        value.as_object()?.iter().map(|(k, v)| Some((k.clone(), read(v)?))).collect()
    };
    Ok(typed(map, key, "an object of patterns and numbers", all)?.unwrap_or_default())
}
