//! `run.lock`: the recipe after defaults, the hash of every input, and the results.
//!
//! Written once before step 1 and again with results at the end, each time as a whole. Field by field in
//! `docs/lock.md`.

mod file;
#[cfg(test)]
mod tests;

pub use file::LockError;

use crate::provenance::Statement;
use crate::recipe::Recipe;
use seedcorn_data::source::hash_text;
use seedcorn_kernels::device::{self, DeviceChoice};
use seedcorn_kernels::isa;
use serde::{Deserialize, Serialize};

/// The only layout that is read.
const VERSION: u32 = 2;

/// The content of `run.lock`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct Lock {
    pub version: u32,
    pub recipe_digest: String,
    pub tool: Tool,
    pub device: Device,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_file: Option<File>,
    pub recipe: toml::Table,
    pub model: ModelFiles,
    pub data: DataFiles,
    pub samples: Samples,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
}

/// The program that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct Tool {
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    pub profile: String,
}

impl Tool {
    /// Describes this build.
    pub fn this() -> Tool {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        Tool {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("SEEDCORN_COMMIT").map(str::to_owned),
            profile: profile.to_owned(),
        }
    }
}

/// What the bits of a result depend on besides inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct Device {
    pub class: String,
    pub isa: String,
}

impl Device {
    /// Describes where a run on `device` computes in this process: for a device that is not there, only its class.
    pub fn of(device: DeviceChoice) -> Device {
        match device {
            DeviceChoice::Cpu => Device { class: "cpu".to_owned(), isa: isa::tier().name().to_owned() },
            DeviceChoice::Wgpu(_) | DeviceChoice::Cuda(_) => {
                let isa = device::name(device).unwrap_or_default();
                Device { class: device.kind().to_owned(), isa }
            }
        }
    }
}

/// A file that was read or written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct File {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// The frozen base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct ModelFiles {
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    pub tokenizer_sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_sha256: Option<String>,
    pub files: Vec<File>,
    /// Files of the adapter the run continued from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapter_files: Vec<File>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<Statement>,
}

/// The data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct DataFiles {
    pub train: Vec<Source>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eval: Vec<Source>,
}

/// One source of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct Source {
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    pub records: u64,
    pub files: Vec<File>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<Statement>,
}

/// What became of the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct Samples {
    pub train: u64,
    pub eval: u64,
    pub truncated: u64,
    pub dropped: u64,
    pub tokens: u64,
    pub trained_tokens: u64,
    pub sequences: u64,
    pub total_steps: u64,
    pub order: Order,
}

/// Hashes that two runs with the same order of samples share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct Order {
    pub train_sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_sha256: Option<String>,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct Results {
    pub steps: u64,
    pub trained_tokens: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_loss: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss_before: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss_after: Option<f64>,
    /// [`seedcorn_adapters::Adapter::digest`] of the trained adapter.
    pub adapter_sha256: String,
    #[serde(default)]
    pub early: Vec<EarlyStep>,
    pub mesh: MeshResult,
    /// Files of the run's folder, sorted by name.
    #[serde(default)]
    pub files: Vec<File>,
}

/// The ranks that trained last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct MeshResult {
    pub data: usize,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub tensor: usize,
}

/// Locks of whole models say nothing of slices.
fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_one(count: &usize) -> bool {
    *count == 1
}

/// One of the first steps, for a check that need not run the whole training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct EarlyStep {
    pub step: u64,
    pub loss: f64,
    pub grad_norm: f64,
    pub adapter_sha256: String,
}

impl Lock {
    /// Starts the lock of a run by this build.
    pub fn new(
        recipe: &Recipe,
        device: Device,
        model: ModelFiles,
        data: DataFiles,
        samples: Samples,
    ) -> Lock {
        Lock {
            version: VERSION,
            recipe_digest: recipe.digest(),
            tool: Tool::this(),
            device,
            recipe_file: None,
            recipe: recipe.table(),
            model,
            data,
            samples,
            results: None,
        }
    }

    /// Returns the sha256 of what decides the bits: recipe digest, inputs, samples and device, without
    /// results, and without what only says where things are or which build of this version ran.
    pub fn input_digest(&self) -> String {
        hash_text(&self.inputs())
    }

    /// Writes what [`Lock::input_digest`] hashes.
    pub fn inputs(&self) -> String {
        let tool = Tool { commit: None, ..self.tool.clone() };
        let recipe = toml::Table::new();
        let mut inputs = Lock { recipe_file: None, recipe, tool, results: None, ..self.clone() };
        inputs.forget_licences();
        inputs.unsealed()
    }

    /// Drops the licences: they depend on what could be asked, and decide no bit.
    fn forget_licences(&mut self) {
        self.model.license = None;
        for source in self.data.train.iter_mut().chain(&mut self.data.eval) {
            source.license = None;
        }
    }
}
