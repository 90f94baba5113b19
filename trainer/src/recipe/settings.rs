//! The recipe after checks and defaults: what the rest of the program reads, and what the lock holds.

use super::choice::{
    Activation, AdapterKind, Compute, Format, Merged, OnLong, OptimizerKind, Quantize, Reduction,
    ScheduleKind, TrainOn, Unknown,
};
use super::file::Targets;
use super::location::Location;
use super::rank_count::RankCount;
use crate::parallel::Mesh;
use seedcorn_kernels::device::DeviceChoice;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A recipe whose values have been checked and are all present.
///
/// Serialises to a TOML recipe that resolves to the same values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// The file it was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Version of the recipe's layout.
    pub version: u64,
    /// Folder of the run.
    pub output: PathBuf,
    /// Where the run computes; the CPU is not written, as in recipes from before there was a choice.
    #[serde(skip_serializing_if = "is_cpu", serialize_with = "as_text")]
    pub device: DeviceChoice,
    /// The frozen base.
    pub model: Model,
    /// What is trained.
    pub adapter: Adapter,
    /// What it is trained on.
    pub data: Data,
    /// Batches and steps.
    pub train: Train,
    /// Update rule.
    pub optimizer: Optimizer,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Held-out loss; absent when the recipe holds nothing out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<Eval>,
    /// Saved states.
    pub checkpoint: Checkpoint,
    /// Written results.
    pub export: Export,
    /// What is shown and logged.
    pub log: Log,
    /// Licences that the run may use; absent when the recipe has no policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// How many ranks share the work.
    pub parallel: Parallel,
}

fn is_cpu(device: &DeviceChoice) -> bool {
    *device == DeviceChoice::Cpu
}

fn as_text<S: Serializer>(device: &DeviceChoice, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(device)
}

/// The frozen base.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// Where the weights, configuration and tokenizer come from.
    pub source: Location,
    /// Storage of the base weights.
    pub quantize: Quantize,
    /// Whether the scales of nf4 blocks are quantized too; absent without nf4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub double_quant: Option<bool>,
    /// Number type of activations and products.
    pub compute: Compute,
    /// Pinned hashes: file name to lower-case sha256.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sha256: BTreeMap<String, String>,
    /// Licence as the recipe states it, in the spelling of its list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

/// What is trained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Adapter {
    /// Kind of adapter.
    pub kind: AdapterKind,
    /// Share of the adapter's inputs set to zero in training.
    pub dropout: f64,
    /// A fresh adapter or an existing one.
    #[serde(flatten)]
    pub start: AdapterStart,
}

/// Where the adapter's first values come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AdapterStart {
    /// Continues from a PEFT adapter, whose own configuration decides rank, alpha and targets.
    From {
        /// Folder of the adapter.
        from: Location,
    },
    /// Starts from PEFT's default initialisation.
    Fresh(LoraShape),
}

/// Size and place of a fresh adapter, in PEFT's terms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoraShape {
    /// Rows of A and columns of B.
    pub rank: u64,
    /// Numerator of the scale: `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
    pub alpha: f64,
    /// Whether the scale divides by the square root of the rank.
    pub rslora: bool,
    /// Layers that get an adapter.
    pub targets: Targets,
    /// Layers that get none although `targets` names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Another rank for some layers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, u64>,
    /// Another alpha for some layers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
}

/// What the adapter is trained on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Data {
    /// Longest sample, and size of a pack, in tokens.
    pub max_length: u64,
    /// What happens to longer samples.
    pub on_long: OnLong,
    /// Whether several samples share one sequence of `max_length` tokens.
    pub packing: bool,
    /// Whether each epoch has its own order.
    pub shuffle: bool,
    /// Share of the training records that is held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_fraction: Option<f64>,
    /// Number of training records that is held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_count: Option<u64>,
    /// Training sources, mixed by weight.
    pub train: Vec<DataSource>,
    /// Held-out sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub eval: Vec<DataSource>,
}

/// One file of records.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataSource {
    /// Where the file comes from.
    pub source: Location,
    /// Layout of its records.
    pub format: Format,
    /// Share in the mixture, relative to the other sources; absent for held-out sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// What is trained; absent for `tokens`, whose labels decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_on: Option<TrainOn>,
    /// Pinned hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Licence as the recipe states it, in the spelling of its list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// The format's names of fields, to the names that the records have for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// Batches and steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Train {
    /// Sequences (packs with packing) in an optimizer step.
    pub batch_size: u64,
    /// Sequences that go through the model at once; divides `batch_size`.
    pub micro_batch: u64,
    /// Optimizer steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Passes over the training data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Seed of every random draw.
    pub seed: u64,
    /// Largest global gradient norm; 0 does not clip.
    pub max_grad_norm: f64,
    /// What the forward pass keeps.
    pub activation: Activation,
    /// Most bytes that may be kept for the backward pass; absent when `activation` does not ask, or when the
    /// machine's free memory decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_budget: Option<u64>,
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// In optimizer steps.
    Steps(u64),
    /// In passes over the training data.
    Epochs(u64),
}

impl Train {
    /// Returns how long the run is.
    pub fn length(&self) -> Length {
        self.steps.map_or_else(|| Length::Epochs(self.epochs.unwrap_or(1)), Length::Steps)
    }

    /// Returns the micro-batches of an optimizer step.
    pub fn accumulation(&self) -> u64 {
        self.batch_size / self.micro_batch
    }
}

/// Update rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimizer {
    /// The rule.
    pub kind: OptimizerKind,
    /// Largest learning rate.
    pub lr: f64,
    /// Decay of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Learning rate over the steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// Curve after the warm-up.
    pub kind: ScheduleKind,
    /// Steps that climb to `lr`.
    pub warmup_steps: u64,
    /// Last learning rate as a share of `lr`; absent for `constant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_ratio: Option<f64>,
}

/// Held-out loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Eval {
    /// Steps between evaluations; 0 evaluates only before step 1 and at the end.
    pub every_steps: u64,
    /// Evaluates only the first held-out samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_samples: Option<u64>,
}

/// Saved states.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0 saves none.
    pub every_steps: u64,
    /// Newest checkpoints that are kept; absent when none are saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<u64>,
}

/// Results that are written besides the adapter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Export {
    /// Merged model.
    pub merged: Merged,
}

/// What is shown and logged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Log {
    /// Whether one held-out question is answered before and after training.
    pub sample: bool,
    /// Whether event files for TensorBoard are written.
    pub tensorboard: bool,
}

/// Licences that a run may use, in the spelling of their lists.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// Only these; empty for all that are not denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// What an unknown licence means.
    pub unknown: Unknown,
}

/// How many ranks share the work. How many share the data never changes a bit of the result, unless gradients are added the
/// fast way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parallel {
    /// Ranks that share out the micro-batches of a step, whose number they divide.
    pub data: RankCount,
    /// Ranks that share out every layer of the model.
    #[serde(skip_serializing_if = "is_one")]
    pub tensor: u64,
    /// Whether each rank keeps a part of the frozen weights only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shard_base: bool,
    /// Seconds that a rank may take longer than expected.
    pub timeout_seconds: u64,
    /// How gradients are added; absent where it is as ever.
    #[serde(skip_serializing_if = "Reduction::is_tree")]
    pub reduction: Reduction,
    /// Ranks that share this machine's memory; no part of a recipe.
    #[serde(skip)]
    pub on_this_machine: u64,
    /// Whether a launcher starts the ranks as processes; no part of a recipe.
    #[serde(skip)]
    pub launched: bool,
}

impl Parallel {
    /// Returns how many ranks keep a part each of the frozen weights; 1 where each keeps all.
    pub fn parts(&self) -> u64 {
        match self.data {
            RankCount::Exactly(ranks) if self.shard_base => ranks,
            _ => 1,
        }
    }

    /// Returns how the ranks are laid out; one rank where their number is not settled.
    pub fn mesh(&self) -> Mesh {
        let data = match self.data {
            RankCount::Auto => 1,
            RankCount::Exactly(ranks) => ranks as usize,
        };
        Mesh { data, tensor: self.tensor as usize }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_one(count: &u64) -> bool {
    *count == 1
}
