//! Checked access to the keys of a JSON object: an absent key and `null` are `None`, a wrong type or an
//! absurd number is an error that names the key.

use serde_json::{Map, Value};

use super::config_error::ConfigError;

/// Largest width or count of tokens; keeps every product of two in 64 bits.
pub(super) const MAX_SIZE: u64 = 1 << 31;

/// A JSON object and the path that leads to it.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) map: &'a Map<String, Value>,
    /// Put before a key in messages, such as `rope_parameters.`.
    pub(super) prefix: &'static str,
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || ConfigError::WrongType { key: self.path(key), expected, found: describe(value) };
        read(value).map(Some).ok_or_else(wrong)
    }

    pub(super) fn missing(&self, key: &str) -> ConfigError {
        ConfigError::MissingKey { key: self.path(key) }
    }

    pub(super) fn unsupported(&self, key: &str, supported: &'static str) -> ConfigError {
        let value = self.map.get(key).map_or_else(|| "null".to_owned(), describe);
        ConfigError::UnsupportedValue { key: self.path(key), value, supported }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// Checks a number read from `key`: finite and above a bound, in f32 as well.
    pub(super) fn above(&self, key: &str, value: f64, above: f64) -> Result<f64, ConfigError> {
        if value > above && (value as f32).is_finite() && value as f32 > above as f32 {
            return Ok(value);
        }
        Err(ConfigError::BadNumber { key: self.path(key), value, above })
    }

    /// Reads a required number above zero.
    pub(super) fn positive(&self, key: &str) -> Result<f64, ConfigError> {
        let value = self.number(key)?.ok_or_else(|| self.missing(key))?;
        self.above(key, value, 0.0)
    }

    /// Reads an integer from 0 to `max`; `least` is 0 or 1.
    fn integer(&self, key: &str, least: u64, max: u64) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        if !value.is_u64() && !value.is_i64() {
            let expected = "an integer";
            return Err(ConfigError::WrongType { key: self.path(key), expected, found: describe(value) });
        }
        let number = value.as_u64().filter(|n| (least..=max).contains(n));
        number.map(Some).ok_or_else(|| ConfigError::OutOfRange {
            key: self.path(key),
            value: value.to_string(),
            min: least,
            max,
        })
    }

    pub(super) fn size(&self, key: &str, max: u64) -> Result<Option<usize>, ConfigError> {
        Ok(self.integer(key, 1, max)?.map(|n| n as usize))
    }

    pub(super) fn required(&self, key: &str, max: u64) -> Result<usize, ConfigError> {
        self.size(key, max)?.ok_or_else(|| self.missing(key))
    }

    /// Reads a size for which `null` is a value of its own: `default` stands for an absent key only.
    pub(super) fn size_or(&self, key: &str, default: Option<usize>) -> Result<Option<usize>, ConfigError> {
        if self.map.contains_key(key) { self.size(key, MAX_SIZE) } else { Ok(default) }
    }

    pub(super) fn count_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        Ok(self.integer(key, 0, MAX_SIZE)?.map_or(default, |n| n as usize))
    }

    /// Reads a token id; -1, which old configurations write for "none", is `None`.
    pub(super) fn token(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        if self.get(key).and_then(Value::as_i64) == Some(-1) {
            return Ok(None);
        }
        Ok(self.integer(key, 0, MAX_SIZE)?.map(|n| n as u32))
    }

    /// Reads one token id or a list of them.
    pub(super) fn tokens(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let Some(Value::Array(list)) = self.get(key) else {
            return Ok(self.token(key)?.into_iter().collect());
        };
        let id = |value: &Value| value.as_u64().filter(|n| *n <= MAX_SIZE).map(|n| n as u32);
        list.iter().map(id).collect::<Option<_>>().ok_or_else(|| ConfigError::WrongType {
            key: self.path(key),
            expected: "a token id or a list of token ids",
            found: describe(&self.map[key]),
        })
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        let texts = |value: &Value| {
            let list = value.as_array()?;
            list.iter().map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        };
        Ok(self.typed(key, "a list of strings", texts)?.unwrap_or_default())
    }

    pub(super) fn object(&self, key: &'static str) -> Result<Option<Fields<'a>>, ConfigError> {
        let prefix = match key {
            "rope_scaling" => "rope_scaling.",
            "rope_parameters" => "rope_parameters.",
            _ => "quantization_config.",
        };
        let object = self.typed(key, "an object", Value::as_object)?;
        Ok(object.map(|map| Fields { map, prefix }))
    }

    /// Reads `layer_types`: for each block, whether its attention slides.
    pub(super) fn layer_types(&self, num_layers: usize) -> Result<Option<Vec<bool>>, ConfigError> {
        if self.get("layer_types").is_none() {
            return Ok(None);
        }
        let types = self.texts("layer_types")?;
        if types.len() != num_layers {
            return Err(ConfigError::LayerTypesLength { found: types.len(), expected: num_layers });
        }
        let sliding = |name: &String| match name.as_str() {
            "sliding_attention" => Ok(true),
            "full_attention" | "attention" => Ok(false),
            _ => Err(ConfigError::UnsupportedValue {
                key: "layer_types".to_owned(),
                value: format!("{name:?}"),
                supported: "`full_attention`, `sliding_attention`",
            }),
        };
        types.iter().map(sliding).collect::<Result<_, _>>().map(Some)
    }
}

/// Names the JSON type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Names the type of a value, and the value itself where it is short.
fn describe(value: &Value) -> String {
    let text = value.to_string();
    match value {
        Value::Array(_) | Value::Object(_) | Value::Null => type_name(value).to_owned(),
        _ if text.len() > 60 => type_name(value).to_owned(),
        _ => format!("`{text}`"),
    }
}
