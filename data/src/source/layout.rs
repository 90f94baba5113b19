//! Which files make up a model in Hugging Face layout.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::error::SourceError;
use super::parse::{is_inner_path, is_url_plain};

/// Describes the architecture; no model is without it.
pub(super) const CONFIG: &str = "config.json";
/// Weights in one file.
pub(super) const WEIGHTS: &str = "model.safetensors";
/// Names the shards where there are several.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Taken along where present. Code files (`*.py`) are never fetched.
pub(super) const OPTIONAL: [&str; 5] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// An index names each tensor once; a million of them fit.
const MAX_INDEX_BYTES: u64 = 256 * 1024 * 1024;
const MAX_SHARDS: usize = 10_000;

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// Reads the shard names of an index, checked to stay in its folder.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>, SourceError> {
    let bad = |fault: String| SourceError::BadIndex { path: index.to_owned(), fault };
    let file = fs_err::File::open(index)?;
    if file.metadata()?.len() > MAX_INDEX_BYTES {
        return Err(bad(format!("more than {MAX_INDEX_BYTES} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_INDEX_BYTES).read_to_end(&mut bytes)?;
    let parsed: Index = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(bad(format!("{} shards, expected 1 to {MAX_SHARDS}", names.len())));
    }
    let sound = |name: &String| name.ends_with(".safetensors") && is_inner_path(name) && is_url_plain(name);
    match names.iter().find(|name| !sound(name)) {
        Some(name) => Err(bad(format!("unusable shard name `{}`", name.escape_default()))),
        None => Ok(names),
    }
}
