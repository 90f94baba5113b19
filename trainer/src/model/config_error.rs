//! Faults of a `config.json`.

use std::path::PathBuf;

use super::family;

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    // The file.
    /// The file cannot be read; the cause names it.
    #[error("could not read the model's configuration")]
    Io(#[from] std::io::Error),
    /// The file is larger than any real configuration.
    #[error("`{path}` has {bytes} bytes, more than the {limit} a configuration may have")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The text is not JSON.
    #[error("`config.json` is not valid JSON")]
    NotJson(#[from] serde_json::Error),
    /// The text is JSON but not an object.
    #[error("`config.json` must hold an object, found {found}")]
    NotAnObject {
        /// Type found.
        found: &'static str,
    },
    // Keys.
    /// A key without which the architecture is unknown.
    #[error("`{key}` is missing in `config.json`")]
    MissingKey {
        /// Path of the key.
        key: String,
    },
    /// A value of another type.
    #[error("`{key}` in `config.json` must be {expected}, found {found}")]
    WrongType {
        /// Path of the key.
        key: String,
        /// What is expected.
        expected: &'static str,
        /// Type found; the literal too when it is a number.
        found: String,
    },
    /// A number no model has.
    #[error("`{key}` in `config.json` is {value}, outside {min} to {max}")]
    OutOfRange {
        /// Path of the key.
        key: String,
        /// The number as written.
        value: String,
        /// Least value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A real number that makes no sense where it stands.
    #[error("`{key}` in `config.json` is {value}, expected a finite number above {above}")]
    BadNumber {
        /// Path of the key.
        key: String,
        /// The number.
        value: f64,
        /// Exclusive lower bound.
        above: f64,
    },
    // Architecture.
    /// No family file describes this model.
    #[error("unknown `model_type` `{found}`; supported: {}", quoted(&family::SUPPORTED))]
    UnsupportedModelType {
        /// Value of `model_type`.
        found: String,
    },
    /// The width of a head is not given and does not follow.
    #[error("`hidden_size` ({hidden_size}) is not a multiple of `num_attention_heads` ({num_heads})")]
    HeadsDoNotDivide {
        /// Width of the residual stream.
        hidden_size: usize,
        /// Query heads.
        num_heads: usize,
    },
    /// Query heads cannot be shared out over key heads.
    #[error(
        "`num_attention_heads` ({num_heads}) is not a multiple of `num_key_value_heads` ({num_kv_heads})"
    )]
    KvHeadsDoNotDivide {
        /// Query heads.
        num_heads: usize,
        /// Key and value heads.
        num_kv_heads: usize,
    },
    /// Rotation works on pairs.
    #[error("`head_dim` ({head_dim}) is odd; rotary embeddings need pairs")]
    OddHeadDim {
        /// Width of a head.
        head_dim: usize,
    },
    /// A rotary scaling that is not implemented.
    #[error("rope type `{rope_type}` is not supported; supported: `default`, `linear`, `llama3`")]
    UnsupportedRope {
        /// Value of `rope_type`.
        rope_type: String,
    },
    /// A ramp of no or negative width.
    #[error("`high_freq_factor` ({high}) must be above `low_freq_factor` ({low})")]
    RopeFactorsCross {
        /// `low_freq_factor`.
        low: f64,
        /// `high_freq_factor`.
        high: f64,
    },
    /// A key whose value changes the arithmetic in a way that is not implemented.
    #[error("`{key}` = {value} in `config.json` is not supported; supported: {supported}")]
    UnsupportedValue {
        /// Path of the key.
        key: String,
        /// The value as JSON.
        value: String,
        /// What would do.
        supported: &'static str,
    },
    /// One entry per block is needed.
    #[error("`layer_types` has {found} entries, `num_hidden_layers` is {expected}")]
    LayerTypesLength {
        /// Entries.
        found: usize,
        /// Blocks.
        expected: usize,
    },
    /// The checkpoint is packed by another tool.
    #[error("quantization method `{method}` is not supported; supported: `bitsandbytes`")]
    UnsupportedQuantization {
        /// Value of `quant_method`.
        method: String,
    },
}

impl ConfigError {
    /// What to do about it, where that is not plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io(_) => Some("a model folder holds `config.json` beside its safetensors files"),
            Self::UnsupportedQuantization { .. } => Some("use the dense checkpoint of the same model"),
            Self::HeadsDoNotDivide { .. } => Some("set `head_dim` if heads have a width of their own"),
            Self::UnsupportedModelType { .. }
            | Self::UnsupportedRope { .. }
            | Self::UnsupportedValue { .. } => Some("use a model of a supported architecture"),
            _ => Some("`config.json` may be damaged or edited: fetch it again"),
        }
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
