//! A whole Hugging Face model folder from a configuration, side files and a source of tensors.

use std::path::Path;

use seedcorn_adapters::error::AdapterError;
use seedcorn_adapters::folder::NewFolder;
use serde_json::Value;

use super::shards::{Entry, ExportDtype, index, is_written_here, shard_name, split, write_shard};

/// Shards above this size, bytes, as huggingface_hub does.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// Side files that may stand beside the weights.
pub(super) const SIDE_FILES: [&str; 10] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// Why a model cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file cannot be written; the cause names it.
    #[error("could not write the model folder")]
    Io(#[from] std::io::Error),
    /// The folder cannot be made or replaced.
    #[error(transparent)]
    Folder(#[from] AdapterError),
    /// `config.json` is not an object.
    #[error("the model's configuration is not an object")]
    BadConfig,
    /// A side file that is not part of a model folder.
    #[error("`{name}` is not a file of a model folder")]
    UnknownSideFile {
        /// Its name.
        name: String,
    },
    /// Two tensors of one name.
    #[error("tensor `{name}` is listed twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// More elements than a file can hold.
    #[error("tensor `{name}` with shape {shape:?} is too large")]
    TooLarge {
        /// The name.
        name: String,
        /// The shape.
        shape: Vec<usize>,
    },
    /// The source of tensors gave another size than its shape says.
    #[error("tensor `{name}` has {found} elements, its shape needs {expected}")]
    Length {
        /// The name.
        name: String,
        /// Elements given.
        found: usize,
        /// Elements of the shape.
        expected: usize,
    },
    /// Infinity or NaN.
    #[error("tensor `{name}` is not finite at element {index}")]
    NotFinite {
        /// The name.
        name: String,
        /// Index of the first such element, row-major.
        index: usize,
    },
    /// An adapter for a layer of another shape.
    #[error("`{module}` has {elements} elements, its adapter is for {rows} x {columns}")]
    MergeShape {
        /// The layer.
        module: String,
        /// Elements of its weight.
        elements: usize,
        /// Output width of the adapter.
        rows: usize,
        /// Input width of the adapter.
        columns: usize,
    },
    /// A tensor could not be read from the base model.
    #[error("could not read tensor `{name}` of the base model")]
    Provide {
        /// The name.
        name: String,
        /// The fault.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a model folder is made of.
#[derive(Debug)]
pub struct HubFolder<'a> {
    /// `config.json` of the base; its dtype is set and `quantization_config` dropped.
    pub config: &'a Value,
    /// Names and contents of the tokenizer's and the generation's files.
    pub side_files: &'a [(String, Vec<u8>)],
    /// Names and shapes of all tensors, in any order. The head of a model with tied embeddings is dropped.
    pub tensors: &'a [(String, Vec<usize>)],
    /// Number format of the weights.
    pub dtype: ExportDtype,
    /// Largest file of weights, bytes; a single tensor may exceed it.
    pub shard_bytes: u64,
}

/// Writes a model folder that `transformers` loads; it appears at `path` whole or not at all.
///
/// `provide` is asked for each tensor once, in order of names, and returns it row-major in f32; only that
/// tensor is held in memory.
///
/// # Errors
/// A folder that holds anything but an earlier export, data that is not finite or not of the announced size, and what
/// `provide` returns.
pub fn write_hub_folder(
    path: &Path,
    model: &HubFolder<'_>,
    provide: &mut dyn FnMut(&str) -> Result<Vec<f32>, ExportError>,
) -> Result<(), ExportError> {
    let config = exported_config(model.config, model.dtype)?;
    if let Some((name, _)) = model.side_files.iter().find(|(name, _)| !SIDE_FILES.contains(&name.as_str())) {
        return Err(ExportError::UnknownSideFile { name: name.clone() });
    }
    let entries = entries(model)?;
    let shards = split(&entries, model.shard_bytes);

    refuse_foreign(path)?;
    let folder = NewFolder::create(path, is_ours)?;
    let text = serde_json::to_string_pretty(&config).expect("a JSON value always prints") + "\n";
    folder.write("config.json", text.as_bytes())?;
    for (name, bytes) in model.side_files {
        folder.write(name, bytes)?;
    }
    for (at, shard) in shards.iter().enumerate() {
        write_shard(&folder, &shard_name(at, shards.len()), shard, model.dtype, provide)?;
    }
    if shards.len() > 1 {
        folder.write("model.safetensors.index.json", index(&shards).as_bytes())?;
    }
    Ok(folder.commit()?)
}

/// Refuses a folder of weights that were not written here: all its names may be ours, and it is still another
/// model, which is not to be lost.
fn refuse_foreign(path: &Path) -> Result<(), ExportError> {
    if !path.is_dir() {
        return Ok(());
    }
    for entry in fs_err::read_dir(path)? {
        let found = entry?.file_name().to_string_lossy().into_owned();
        if is_weights(&found) && !is_written_here(&path.join(&found))? {
            return Err(AdapterError::FolderInUse { path: path.to_owned(), found }.into());
        }
    }
    Ok(())
}

fn is_weights(name: &str) -> bool {
    name.starts_with("model") && name.ends_with(".safetensors")
}

/// Tells whether a file is one that an export writes, so that a second export may replace the first.
fn is_ours(name: &str) -> bool {
    is_weights(name)
        || ["config.json", "model.safetensors.index.json", "run.lock"].contains(&name)
        || SIDE_FILES.contains(&name)
}

/// Sorts the tensors by name and drops the head of a model with tied embeddings: it is the embedding.
fn entries(model: &HubFolder<'_>) -> Result<Vec<Entry>, ExportError> {
    let tied = model.config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false);
    let mut entries = model
        .tensors
        .iter()
        .filter(|(name, _)| !(tied && name == "lm_head.weight"))
        .map(|(name, shape)| Entry::new(name, shape, model.dtype))
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(ExportError::Duplicate { name: pair[0].name.clone() });
    }
    Ok(entries)
}

/// Sets the dtype under the key that was there (`torch_dtype` before transformers 5, `dtype` since) and drops
/// `quantization_config`: the exported weights are dense.
fn exported_config(config: &Value, dtype: ExportDtype) -> Result<Value, ExportError> {
    let mut map = config.as_object().ok_or(ExportError::BadConfig)?.clone();
    map.shift_remove("quantization_config");
    let key =
        if map.contains_key("torch_dtype") && !map.contains_key("dtype") { "torch_dtype" } else { "dtype" };
    map.shift_remove("torch_dtype");
    map.insert(key.to_owned(), dtype.config_name().into());
    map.sort_keys();
    Ok(Value::Object(map))
}
