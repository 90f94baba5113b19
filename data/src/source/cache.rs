//! The content-addressed cache: blobs under their hash, and an index of what each source gave.
//!
//! ```text
//! blobs/sha256/<hash>     read-only files
//! index/<hash of key>     one JSON file a source: names, hashes, sizes, times
//! tmp/                    downloads in flight
//! ```
//! A blob is hashed while it is written. Later starts trust it as long as size and modification time
//! are those recorded then; otherwise, or when told to verify, it is hashed again.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::error::SourceError;
use super::hash::{HashingWriter, hash_file, hash_text, is_sha256};
use super::parse::is_inner_path;
use super::{Resolved, ResolvedFile};

/// Layout version of the index.
const VERSION: u32 = 1;
/// An index file lists some hundred shards at most; anything larger is not ours.
const MAX_INDEX_BYTES: u64 = 16 * 1024 * 1024;

/// A cache folder; it need not exist.
pub(super) struct Cache {
    dir: PathBuf,
}

/// What the index says about a source.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    version: u32,
    source: String,
    revision: Option<String>,
    /// Folder of the files; none where the only file is the root.
    root: Option<PathBuf>,
    files: Vec<EntryFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFile {
    name: String,
    /// Where the file is, unless it is a blob: a cache that was moved or copied stays usable.
    path: Option<PathBuf>,
    bytes: u64,
    sha256: String,
    /// Modification time when the file was hashed, nanoseconds since 1970.
    modified_ns: i64,
}

/// State of a file compared with its index entry.
enum State {
    Same,
    Touched(i64),
    Gone,
}

impl Cache {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Makes a folder for work in flight, removed when dropped.
    pub(super) fn scratch(&self, prefix: &str) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix(prefix).tempdir_in(self.folder("tmp")?)
    }

    /// Streams content into a blob: written beside, synced, then renamed to its hash.
    pub(super) fn insert(
        &self,
        name: &str,
        fill: impl FnOnce(&mut HashingWriter<NamedTempFile>) -> Result<(), SourceError>,
    ) -> Result<ResolvedFile, SourceError> {
        let mut writer = HashingWriter::new(self.temporary(0o444)?);
        fill(&mut writer)?;
        let (sha256, bytes, temp) = writer.finish();
        temp.as_file().sync_all()?;
        self.folder("blobs/sha256")?;
        let path = self.blob_path(&sha256);
        // A blob that is there already is replaced: same content, and a damaged one is healed.
        temp.persist(&path).map_err(|error| error.error)?;
        sync_folder_of(&path)?;
        Ok(ResolvedFile { name: name.to_owned(), path, bytes, sha256 })
    }

    /// Writes the index entry of a source.
    pub(super) fn record(&self, key: &str, resolved: &Resolved) -> Result<(), SourceError> {
        let files =
            resolved.files.iter().map(|file| self.entry_file(file)).collect::<io::Result<Vec<_>>>()?;
        let of_file = files.len() == 1 && resolved.root == resolved.files[0].path;
        self.write(&Entry {
            version: VERSION,
            source: key.to_owned(),
            revision: resolved.revision.clone(),
            root: (!of_file).then(|| resolved.root.clone()),
            files,
        })
    }

    /// Finds a source whose files are all present and unchanged.
    ///
    /// `None` means it has to be fetched (again); the reason is logged.
    pub(super) fn lookup(&self, key: &str, verify: bool) -> Result<Option<Resolved>, SourceError> {
        let Some(mut entry) = self.read(key) else { return Ok(None) };
        let mut touched = false;
        for file in &mut entry.files {
            let path = self.path_of(file);
            match file.state(&path, verify)? {
                State::Same => {}
                State::Touched(modified_ns) => {
                    file.modified_ns = modified_ns;
                    touched = true;
                }
                State::Gone => return Ok(None),
            }
        }
        if touched && let Err(error) = self.write(&entry) {
            // The cache may be read-only for us; the price is another hash at the next start.
            tracing::debug!(%error, "could not update the index of `{key}`");
        }
        let files: Vec<ResolvedFile> = entry
            .files
            .into_iter()
            .map(|file| ResolvedFile {
                path: self.path_of(&file),
                name: file.name,
                bytes: file.bytes,
                sha256: file.sha256,
            })
            .collect();
        let root = entry.root.unwrap_or_else(|| files[0].path.clone());
        Ok(Some(Resolved { root, files, revision: entry.revision }))
    }

    fn read(&self, key: &str) -> Option<Entry> {
        let path = self.entry_path(key);
        let mut bytes = Vec::new();
        fs_err::File::open(&path).ok()?.take(MAX_INDEX_BYTES).read_to_end(&mut bytes).ok()?;
        let entry = serde_json::from_slice::<Entry>(&bytes)
            .inspect_err(|error| tracing::warn!(%error, "ignoring the damaged index `{}`", path.display()))
            .ok()?;
        let sound = entry.version == VERSION
            && entry.source == key
            && !entry.files.is_empty()
            && entry.files.iter().all(|file| is_inner_path(&file.name) && is_sha256(&file.sha256));
        sound.then_some(entry)
    }

    fn write(&self, entry: &Entry) -> Result<(), SourceError> {
        self.folder("index")?;
        let path = self.entry_path(&entry.source);
        let mut temp = self.temporary(0o644)?;
        serde_json::to_writer_pretty(&mut temp, entry).map_err(io::Error::from)?;
        temp.as_file().sync_all()?;
        temp.persist(&path).map_err(|error| error.error)?;
        sync_folder_of(&path)?;
        Ok(())
    }

    /// Makes a file to be renamed; readable by others, so that a cache can be shared.
    fn temporary(&self, mode: u32) -> io::Result<NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
        #[cfg(not(unix))]
        let _ = mode;
        builder.tempfile_in(self.folder("tmp")?)
    }

    fn entry_path(&self, key: &str) -> PathBuf {
        self.dir.join("index").join(format!("{}.json", &hash_text(key)[..32]))
    }

    fn entry_file(&self, file: &ResolvedFile) -> io::Result<EntryFile> {
        let blob = file.path == self.blob_path(&file.sha256);
        Ok(EntryFile {
            name: file.name.clone(),
            path: (!blob).then(|| file.path.clone()),
            bytes: file.bytes,
            sha256: file.sha256.clone(),
            modified_ns: modified_ns(&fs_err::metadata(&file.path)?),
        })
    }

    fn path_of(&self, file: &EntryFile) -> PathBuf {
        file.path.clone().unwrap_or_else(|| self.blob_path(&file.sha256))
    }

    fn blob_path(&self, sha256: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(sha256)
    }

    fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        fs_err::create_dir_all(&path)?;
        Ok(path)
    }
}

impl EntryFile {
    fn state(&self, path: &Path, verify: bool) -> io::Result<State> {
        let Ok(metadata) = fs_err::metadata(path) else { return Ok(State::Gone) };
        let now = modified_ns(&metadata);
        if metadata.len() == self.bytes && now == self.modified_ns && !verify {
            return Ok(State::Same);
        }
        if metadata.len() != self.bytes || hash_file(path)?.0 != self.sha256 {
            tracing::warn!("`{}` in the cache has changed since it was written", path.display());
            return Ok(State::Gone);
        }
        Ok(if now == self.modified_ns { State::Same } else { State::Touched(now) })
    }
}

/// Modification time in nanoseconds since 1970, 0 where the file system keeps none.
fn modified_ns(metadata: &std::fs::Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Makes a rename survive a power cut, where the system can.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => fs_err::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
