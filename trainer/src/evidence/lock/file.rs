//! The lock as a file: TOML with a seal at its end, so that a changed byte anywhere in it shows.

use std::io::Read;
use std::path::{Path, PathBuf};

use seedcorn_data::source::hash_text;

use super::{Lock, VERSION};
use crate::checkpoint::atomic;

/// A lock has some lines per file; more than this is not one.
const LIMIT_BYTES: u64 = 16 << 20;
/// The last table of the file.
const SEAL: &str = "\n[seal]\nsha256 = \"";

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
    #[error("`{}` was changed after it was written: its content has sha256 {found}, its seal says {sealed}", path.display())]
    Seal { path: PathBuf, found: String, sealed: String },
    #[error("`{}` was changed after it was written: it does not end with its seal", path.display())]
    NoSeal { path: PathBuf },
}

impl Lock {
    /// Writes the fields as TOML, in their order.
    pub(super) fn unsealed(&self) -> String {
        toml::to_string(self).expect("a lock has only strings, numbers, lists and tables")
    }

    /// Writes the lock as TOML, in the order of the fields, with the hash of all this as its last table.
    pub fn to_toml(&self) -> String {
        let text = self.unsealed();
        let sha256 = hash_text(&text);
        format!("{text}{SEAL}{sha256}\"\n")
    }

    /// Writes the file as a whole.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        atomic::write_file(path, self.to_toml().as_bytes())
            .map_err(|source| LockError::Write { path: path.to_owned(), source })
    }

    /// Reads a lock and compares its seal.
    pub fn read(path: &Path) -> Result<Lock, LockError> {
        let fail = |source| LockError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = fs_err::File::open(path).map_err(fail)?;
        file.take(LIMIT_BYTES).read_to_end(&mut bytes).map_err(fail)?;
        let not_a_lock = |message: &str| LockError::NotALock {
            path: path.to_owned(),
            message: message.trim_end().replace('\n', "; "),
        };
        let text = std::str::from_utf8(&bytes).map_err(|error| not_a_lock(&error.to_string()))?;
        let table = toml::from_str::<toml::Table>(text).map_err(|error| not_a_lock(error.message()))?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(found) if found != i64::from(VERSION) => {
                let found = u32::try_from(found).unwrap_or(u32::MAX);
                return Err(LockError::Version { path: path.to_owned(), found });
            }
            _ => {}
        }
        let content = content(text, path)?;
        toml::from_str(content).map_err(|error| not_a_lock(error.message()))
    }
}

/// Splits off the seal, which must be the very end of the text, and compares it with what stands before.
fn content<'a>(text: &'a str, path: &Path) -> Result<&'a str, LockError> {
    let missing = || LockError::NoSeal { path: path.to_owned() };
    let (content, seal) = text.rsplit_once(SEAL).ok_or_else(missing)?;
    let sealed = seal.strip_suffix("\"\n").ok_or_else(missing)?;
    let found = hash_text(content);
    if found == sealed {
        return Ok(content);
    }
    Err(LockError::Seal { path: path.to_owned(), found, sealed: sealed.to_owned() })
}
