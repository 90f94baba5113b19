//! Faults of adapters: their configuration, their targets and their files.

use std::path::PathBuf;

/// What can go wrong with an adapter.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    // Targets and patterns.
    /// An entry of `targets` or `exclude` that names nothing.
    #[error("adapter {list} entry `{entry}` matches no linear layer; layers here: {}", quoted(available))]
    NoMatch {
        /// `targets` or `exclude`.
        list: &'static str,
        /// The entry.
        entry: String,
        /// Distinct last components of the module names.
        available: Vec<String>,
    },
    /// Nothing to train.
    #[error("adapter targets select no layer after `exclude`; layers here: {}", quoted(available))]
    NothingSelected {
        /// Distinct last components of the module names.
        available: Vec<String>,
    },
    /// A pattern that is not a regular expression of the `regex` crate.
    #[error("`{pattern}` is not a valid pattern")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What the parser says.
        source: Box<regex::Error>,
    },
    /// A pattern of `rank_pattern` or `alpha_pattern` that changes nothing.
    #[error("`{list}` entry `{pattern}` matches none of the adapted layers")]
    UnusedPattern {
        /// `rank_pattern` or `alpha_pattern`.
        list: &'static str,
        /// The pattern.
        pattern: String,
    },
    /// Two patterns that give one layer different values; PEFT would let their order decide.
    #[error("`{list}` entries `{first}` and `{second}` both match `{module}` with different values")]
    AmbiguousPattern {
        /// `rank_pattern` or `alpha_pattern`.
        list: &'static str,
        /// One pattern.
        first: String,
        /// The other.
        second: String,
        /// The layer.
        module: String,
    },
    /// A number of the adapter's configuration that makes no sense.
    #[error("adapter `{key}` is {value}, expected {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    // Files.
    /// A file cannot be read or written; the cause names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file larger than it can reasonably be.
    #[error("`{path}` has {bytes} bytes, more than the {limit} it may have")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A configuration that is not a JSON object.
    #[error("`{path}` is not a JSON object")]
    NotJson {
        /// The file.
        path: PathBuf,
        /// What the parser says, when it is not JSON at all.
        source: Option<serde_json::Error>,
    },
    /// A tensor file that does not follow the format.
    #[error("`{path}` is not a valid safetensors file")]
    BadSafetensors {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: safetensors::SafeTensorError,
    },
    /// The folder that would be replaced holds something else.
    #[error("`{path}` holds `{found}`, which is not part of what would be written there")]
    FolderInUse {
        /// The folder.
        path: PathBuf,
        /// A file in it.
        found: String,
    },
    /// A file name that would leave the folder.
    #[error("`{name}` is not a plain file name")]
    BadFileName {
        /// The name.
        name: String,
    },
    // `adapter_config.json`.
    /// A key that is needed.
    #[error("`{key}` is missing in `adapter_config.json`")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A setting that cannot be honoured.
    #[error("`{key}` = {value} in `adapter_config.json` is not supported; supported: {supported}")]
    UnsupportedSetting {
        /// The key.
        key: String,
        /// Its value as JSON.
        value: String,
        /// What would do.
        supported: &'static str,
    },
    // `adapter_model.safetensors`.
    /// A tensor of a kind that is not a plain LoRA factor.
    #[error("tensor `{tensor}` is not a LoRA factor (`*.lora_A.weight` or `*.lora_B.weight`)")]
    UnsupportedTensor {
        /// Its name.
        tensor: String,
    },
    /// A number format that is not read.
    #[error("tensor `{tensor}` has dtype {found}; supported: F32, F16, BF16")]
    UnsupportedDtype {
        /// Its name.
        tensor: String,
        /// Its dtype.
        found: String,
    },
    /// A shape that does not fit the model or the rank.
    #[error("tensor `{tensor}` has shape {found:?}, expected {expected:?}")]
    ShapeMismatch {
        /// Its name.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that follows from the model and the configuration.
        expected: Vec<usize>,
    },
    /// Infinity or NaN.
    #[error("tensor `{tensor}` is not finite at element {index}")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Index of the first such element, row-major.
        index: usize,
    },
    /// One factor without the other.
    #[error("tensor `{tensor}` is missing")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A layer that the model does not have.
    #[error("the adapter has `{module}`, the model has no such linear layer")]
    UnknownModule {
        /// The module path.
        module: String,
    },
    /// A layer that PEFT would leave out, since `target_modules` does not select it.
    #[error("the adapter has tensors for `{module}`, which `target_modules` does not select")]
    OutsideTargets {
        /// The module path.
        module: String,
    },
    /// Weights whose rank or scale is not what the configuration says.
    #[error(
        "`{module}` has rank {rank} and scale {scale}, its configuration says {cfg_rank} and {cfg_scale}"
    )]
    Inconsistent {
        /// The module path.
        module: String,
        /// Rank of the weights.
        rank: usize,
        /// Scale of the weights.
        scale: f32,
        /// Rank of the configuration.
        cfg_rank: usize,
        /// Scale of the configuration.
        cfg_scale: f32,
    },
}

impl AdapterError {
    /// What to do about it, where that is not plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::BadPattern { .. } => Some("patterns have no look-around and no back-references"),
            Self::AmbiguousPattern { .. } => Some("make one pattern narrower"),
            Self::FolderInUse { .. } => Some("choose an empty or new folder"),
            Self::UnsupportedSetting { key, .. } if key == "init_lora_weights" => Some(
                "this initialisation changed the base; save it with PEFT's \
                 `path_initial_model_for_weight_conversion` so that it fits the untouched base",
            ),
            Self::UnknownModule { .. } | Self::ShapeMismatch { .. } => {
                Some("the adapter was made for another model")
            }
            Self::UnsupportedSetting { .. } => Some("train or export the adapter without this setting"),
            Self::NoMatch { .. } | Self::NothingSelected { .. } => {
                Some("name some of these layers, or use `all-linear`")
            }
            Self::UnusedPattern { .. } => Some("remove the entry, or name a layer that is adapted"),
            Self::TooLarge { .. }
            | Self::NotJson { .. }
            | Self::BadSafetensors { .. }
            | Self::NotFinite { .. }
            | Self::MissingTensor { .. }
            | Self::MissingKey { .. } => {
                Some("the adapter may be incomplete or damaged: copy or export it again")
            }
            _ => None,
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
