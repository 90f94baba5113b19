//! `run.lock`: the recipe after defaults, the hash of every input, and the results.
//!
//! Written once before step 1 and again with results at the end, each time as a whole. Field by field in
//! `docs/lock.md`.

use crate::checkpoint::atomic;
use crate::recipe::{Recipe, sha256_hex};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The only layout so far.
const VERSION: u32 = 1;
/// A lock has some lines per input file; more than this is not one.
const LIMIT_BYTES: u64 = 16 << 20;

/// A lock that could not be written or read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum LockError {
    #[error("could not write `{}`", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("could not read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not a lock of a run: {message}", path.display())]
    NotALock { path: PathBuf, message: String },
    #[error("`{}` has lock version {found}, only {VERSION} is known", path.display())]
    Version { path: PathBuf, found: u32 },
}

/// The content of `run.lock`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct Lock {
    pub version: u32,
    pub recipe_digest: String,
    pub tool: Tool,
    pub device: Device,
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
    pub profile: String,
}

impl Tool {
    /// Describes this build.
    pub fn this() -> Tool {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        Tool { version: env!("CARGO_PKG_VERSION").to_owned(), profile: profile.to_owned() }
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

/// A file that was read.
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
    pub adapter: AdapterResult,
    pub early: Vec<EarlyStep>,
}

/// The written adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct AdapterResult {
    pub files: Vec<File>,
}

/// One of the first steps, for a check that need not run the whole training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is described in docs/lock.md")]
pub struct EarlyStep {
    pub step: u64,
    pub loss: f64,
    pub grad_norm: f64,
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
            recipe: recipe.table(),
            model,
            data,
            samples,
            results: None,
        }
    }

    /// Writes the lock as TOML, in the order of the fields.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a lock has only strings, numbers, lists and tables")
    }

    /// Returns the sha256 of what decides the bits: recipe digest, inputs, samples and device, without
    /// results, and without the parts of the recipe that only say where results go.
    pub fn input_digest(&self) -> String {
        let inputs = Lock { recipe: toml::Table::new(), results: None, ..self.clone() };
        sha256_hex(inputs.to_toml().as_bytes())
    }

    /// Writes the file as a whole.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        atomic::write_file(path, self.to_toml().as_bytes())
            .map_err(|source| LockError::Write { path: path.to_owned(), source })
    }

    /// Reads a lock.
    pub fn read(path: &Path) -> Result<Lock, LockError> {
        let fail = |source| LockError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = fs_err::File::open(path).map_err(fail)?;
        file.take(LIMIT_BYTES).read_to_string(&mut text).map_err(fail)?;
        let not_a_lock = |error: toml::de::Error| LockError::NotALock {
            path: path.to_owned(),
            message: error.message().to_owned(),
        };
        let version = toml::from_str::<toml::Table>(&text).map_err(not_a_lock)?;
        match version.get("version").and_then(toml::Value::as_integer) {
            Some(found) if found != i64::from(VERSION) => {
                let found = u32::try_from(found).unwrap_or(u32::MAX);
                Err(LockError::Version { path: path.to_owned(), found })
            }
            _ => toml::from_str(&text).map_err(not_a_lock),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> File {
        File { name: name.to_owned(), bytes: 3, sha256: sha256_hex(name.as_bytes()) }
    }

    fn source(name: &str) -> Source {
        Source {
            source: name.to_owned(),
            revision: Some("rev".to_owned()),
            records: 2,
            files: vec![file(name)],
        }
    }

    /// A lock in which every field is present.
    fn full() -> Lock {
        let text = "version = 1\noutput = 'o'\nmodel.source = 'm'\ndata.train = [{source = 'd', format = 'text'}]\n\
                    train.batch_size = 1\ntrain.steps = 1\n";
        let typed = crate::recipe::parse(text, Path::new("r/recipe.toml"), &[]).expect("valid");
        let device = Device { class: "cpu".to_owned(), isa: "avx2".to_owned() };
        let model = ModelFiles {
            source: "m".to_owned(),
            revision: Some("rev".to_owned()),
            tokenizer_sha256: "t".to_owned(),
            chat_template_sha256: Some("c".to_owned()),
            files: vec![file("a"), file("b")],
            adapter_files: vec![file("old")],
        };
        let data = DataFiles { train: vec![source("d")], eval: vec![source("e")] };
        let order = Order { train_sha256: "o".to_owned(), eval_sha256: Some("p".to_owned()) };
        let samples = Samples {
            train: 1,
            eval: 2,
            truncated: 3,
            dropped: 4,
            tokens: 5,
            trained_tokens: 6,
            sequences: 7,
            total_steps: 8,
            order,
        };
        let mut lock = Lock::new(&Recipe::resolve(typed).expect("valid"), device, model, data, samples);
        lock.results = Some(Results {
            steps: 8,
            trained_tokens: 9,
            final_loss: Some(0.1 + 0.2),
            eval_loss_before: Some(1.0 / 3.0),
            eval_loss_after: Some(1e-300),
            adapter: AdapterResult { files: vec![file("adapter_model.safetensors")] },
            early: vec![EarlyStep { step: 1, loss: 2.5, grad_norm: 0.7 }],
        });
        lock
    }

    #[test]
    fn is_read_back_bit_for_bit() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("run.lock");
        let lock = full();
        lock.write(&path).expect("written");
        let again = Lock::read(&path).expect("read");
        assert_eq!(again, lock);
        assert_eq!(again.to_toml(), lock.to_toml());
        let order = [
            "version =",
            "[tool]",
            "[device]",
            "[recipe.model]",
            "\n[model]",
            "[[data.train]]",
            "[samples]",
            "[results]",
        ];
        let text = lock.to_toml();
        let places: Vec<_> = order.iter().map(|part| text.find(part).expect(part)).collect();
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn the_input_digest_covers_inputs_only() {
        let lock = full();
        let digest = lock.input_digest();
        assert_eq!(Lock { results: None, ..lock.clone() }.input_digest(), digest);
        let mut elsewhere = lock.clone();
        elsewhere.recipe.insert("output".to_owned(), toml::Value::String("x".to_owned()));
        assert_eq!(elsewhere.input_digest(), digest);
        let mut other = lock.clone();
        other.data.train[0].files[0].sha256.push('0');
        assert_ne!(other.input_digest(), digest);
        let mut other = lock;
        other.samples.order.train_sha256.push('0');
        assert_ne!(other.input_digest(), digest);
    }

    #[test]
    fn refuses_other_files() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("run.lock");
        assert!(matches!(Lock::read(&path), Err(LockError::Read { .. })));
        for text in ["[", "x = 1", "version = 1\n"] {
            fs_err::write(&path, text).expect("written");
            assert!(matches!(Lock::read(&path), Err(LockError::NotALock { .. })), "{text}");
        }
        fs_err::write(&path, "version = 2\n").expect("written");
        let error = Lock::read(&path).expect_err("version");
        assert!(error.to_string().ends_with("has lock version 2, only 1 is known"), "{error}");
    }

    #[test]
    fn every_field_is_in_the_reference_page() {
        fn fields(prefix: &str, value: &toml::Value, out: &mut Vec<String>) {
            match value {
                toml::Value::Table(table) => {
                    for (key, value) in table.iter().filter(|(key, _)| !prefix.is_empty() || *key != "recipe")
                    {
                        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                        fields(&key, value, out);
                    }
                }
                toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                    for item in items {
                        fields(prefix, item, out);
                    }
                }
                _ => out.push(prefix.to_owned()),
            }
        }
        let page = include_str!("../../../docs/lock.md");
        let mut keys = Vec::new();
        fields("", &toml::Value::try_from(full()).expect("TOML"), &mut keys);
        assert!(keys.contains(&"model.files.sha256".to_owned()) && keys.len() > 30, "{keys:?}");
        for key in keys {
            // Held-out sources have the fields of training sources.
            let key = key.replace("data.eval.", "data.train.");
            assert!(page.contains(&format!("| `{key}` |")), "`{key}` is not in docs/lock.md");
        }
    }
}
