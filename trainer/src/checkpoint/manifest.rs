//! The list of a checkpoint's files, and whether they are as it says.

use super::atomic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Name of the list in the folder of a checkpoint.
pub(super) const NAME: &str = "manifest.json";
/// A checkpoint has a handful of files; a longer list is not ours.
const LIMIT_BYTES: u64 = 1 << 20;
const VERSION: u32 = 1;

/// The files of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Layout of this list: 1.
    pub version: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// File name to size and hash.
    pub files: BTreeMap<String, Entry>,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Size in bytes.
    pub bytes: u64,
    /// Hash of the content, lower-case hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// Starts the list of step `step`.
    pub(super) fn new(step: u64) -> Manifest {
        Manifest { version: VERSION, step, files: BTreeMap::new() }
    }

    /// Writes the list as JSON.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("numbers and strings can be written")
    }

    /// Reads the list of a folder and compares every file with it. The error says what is wrong.
    pub(super) fn check(folder: &Path, step: u64) -> Result<Manifest, String> {
        let manifest = read(&folder.join(NAME))?;
        if manifest.version != VERSION {
            return Err(format!("`{NAME}` has version {}, only {VERSION} is known", manifest.version));
        }
        if manifest.step != step {
            return Err(format!("`{NAME}` is of step {}, the folder of step {step}", manifest.step));
        }
        for (name, entry) in &manifest.files {
            if !is_plain_name(name) {
                return Err(format!("`{NAME}` lists `{name}`, which is no plain file name"));
            }
            let path = folder.join(name);
            let found = fs_err::symlink_metadata(&path).map_err(|_| format!("`{name}` is missing"))?;
            if !found.is_file() {
                return Err(format!("`{name}` is not a file"));
            }
            if found.len() != entry.bytes {
                return Err(format!("`{name}` has {} bytes, the manifest says {}", found.len(), entry.bytes));
            }
            let hash =
                atomic::hash_file(&path).map_err(|error| format!("`{name}` cannot be read: {error}"))?;
            if hash != entry.sha256 {
                return Err(format!("`{name}` has sha256 {hash}, the manifest says {}", entry.sha256));
            }
        }
        Ok(manifest)
    }
}

fn read(path: &Path) -> Result<Manifest, String> {
    let file = fs_err::File::open(path).map_err(|_| format!("`{NAME}` is missing"))?;
    let mut bytes = Vec::new();
    file.take(LIMIT_BYTES).read_to_end(&mut bytes).map_err(|error| format!("`{NAME}`: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("`{NAME}` is not a manifest: {error}"))
}

/// Whether a name stays in its folder and is not the list itself.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name != NAME
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}
