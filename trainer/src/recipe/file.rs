//! The recipe as it was typed: every key optional, unknown keys refused, nothing filled in.
//!
//! The names of these fields are the only list of keys in the program: near names for misspelt keys and the
//! check of `docs/recipe.md` are read from them (see `schema`).

use super::byte_size::ByteSize;
use super::choice::{
    Activation, AdapterKind, Compute, Format, Merged, OnLong, OptimizerKind, Quantize, Reduction,
    ScheduleKind, TrainOn, Unknown,
};
use super::rank_count::RankCount;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// A recipe file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeFile {
    /// Version of the recipe's layout: 1.
    pub version: Option<u64>,
    /// Folder of the run.
    pub output: Option<String>,
    /// Where the run computes.
    pub device: Option<String>,
    /// The frozen base.
    #[serde(default)]
    pub model: ModelFile,
    /// What is trained.
    #[serde(default)]
    pub adapter: AdapterFile,
    /// What it is trained on.
    #[serde(default)]
    pub data: DataFile,
    /// Batches and steps.
    #[serde(default)]
    pub train: TrainFile,
    /// Update rule.
    #[serde(default)]
    pub optimizer: OptimizerFile,
    /// Learning rate over the steps.
    #[serde(default)]
    pub schedule: ScheduleFile,
    /// Held-out loss.
    #[serde(default)]
    pub eval: EvalFile,
    /// Saved states.
    #[serde(default)]
    pub checkpoint: CheckpointFile,
    /// Written results.
    #[serde(default)]
    pub export: ExportFile,
    /// What is printed.
    #[serde(default)]
    pub log: LogFile,
    /// Licences that a run may use.
    #[serde(default)]
    pub policy: PolicyFile,
    /// How many ranks share the work.
    #[serde(default)]
    pub parallel: ParallelFile,
}

/// `[model]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct ModelFile {
    pub source: Option<String>,
    pub quantize: Option<Quantize>,
    pub double_quant: Option<bool>,
    pub compute: Option<Compute>,
    pub sha256: Option<BTreeMap<String, String>>,
    pub license: Option<String>,
}

/// `[adapter]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct AdapterFile {
    pub kind: Option<AdapterKind>,
    pub rank: Option<u64>,
    pub alpha: Option<f64>,
    pub dropout: Option<f64>,
    pub rslora: Option<bool>,
    pub targets: Option<Targets>,
    pub exclude: Option<Vec<String>>,
    pub rank_pattern: Option<BTreeMap<String, u64>>,
    pub alpha_pattern: Option<BTreeMap<String, f64>>,
    pub from: Option<String>,
}

/// `[data]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct DataFile {
    pub max_length: Option<u64>,
    pub on_long: Option<OnLong>,
    pub packing: Option<bool>,
    pub shuffle: Option<bool>,
    pub eval_fraction: Option<f64>,
    pub eval_count: Option<u64>,
    pub train_on: Option<TrainOn>,
    #[serde(default)]
    pub train: Vec<SourceFile>,
    #[serde(default)]
    pub eval: Vec<SourceFile>,
}

/// `[[data.train]]` and `[[data.eval]]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct SourceFile {
    pub source: Option<String>,
    pub format: Option<Format>,
    pub weight: Option<f64>,
    pub train_on: Option<TrainOn>,
    pub fields: Option<BTreeMap<String, String>>,
    pub sha256: Option<String>,
    pub license: Option<String>,
}

/// `[train]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct TrainFile {
    pub batch_size: Option<u64>,
    pub micro_batch: Option<u64>,
    pub steps: Option<u64>,
    pub epochs: Option<u64>,
    pub seed: Option<u64>,
    pub max_grad_norm: Option<f64>,
    pub activation: Option<Activation>,
    pub memory_budget: Option<ByteSize>,
}

/// `[optimizer]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct OptimizerFile {
    pub kind: Option<OptimizerKind>,
    pub lr: Option<f64>,
    pub betas: Option<Vec<f64>>,
    pub eps: Option<f64>,
    pub weight_decay: Option<f64>,
}

/// `[schedule]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct ScheduleFile {
    pub kind: Option<ScheduleKind>,
    pub warmup_steps: Option<u64>,
    pub min_ratio: Option<f64>,
}

/// `[eval]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct EvalFile {
    pub every_steps: Option<u64>,
    pub max_samples: Option<u64>,
}

/// `[checkpoint]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct CheckpointFile {
    pub every_steps: Option<u64>,
    pub keep: Option<u64>,
}

/// `[export]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct ExportFile {
    pub merged: Option<Merged>,
}

/// `[log]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct LogFile {
    pub sample: Option<bool>,
    pub tensorboard: Option<bool>,
}

/// `[policy]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct PolicyFile {
    pub allow: Option<Vec<String>>,
    pub deny: Option<Vec<String>>,
    pub unknown: Option<Unknown>,
}

/// `[parallel]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in docs/recipe.md")]
pub struct ParallelFile {
    pub data: Option<RankCount>,
    pub tensor: Option<u64>,
    pub shard_base: Option<bool>,
    pub timeout_seconds: Option<u64>,
    pub reduction: Option<Reduction>,
}

/// Which linear layers get an adapter, by PEFT's rules.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Targets {
    /// `"all-linear"` (every linear layer but the head), or one regular expression that must match a whole
    /// module path.
    Text(String),
    /// Names that equal a module path or its end after a dot.
    Names(Vec<String>),
}

impl Targets {
    /// Whether this is PEFT's word for every linear layer but the head.
    pub fn is_all_linear(&self) -> bool {
        matches!(self, Targets::Text(text) if text == "all-linear")
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Targets;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("`all-linear`, a regular expression or a list of names")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Targets, E> {
                Ok(Targets::Text(text.to_owned()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Targets, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(Targets::Names(names))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
