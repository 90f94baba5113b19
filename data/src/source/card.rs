//! What the publisher of a source says about it, without the source: the card of a repository or folder, the
//! metadata of a wheel.

use std::io::Read;
use std::path::Path;

use super::cache::Cache;
use super::error::SourceError;
use super::resolver::Resolver;
use super::{Resolved, Source, hub, index_key, pypi};

/// Bytes of a card that are read: its front matter stands first.
const LIMIT_BYTES: u64 = 256 * 1024;
/// The card of a repository or folder.
pub(super) const README: &str = "README.md";

/// What stands beside a model or a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// What kind of text it is.
    pub kind: CardKind,
    /// The text, at most its first 256 KiB; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Commit of a hub repository, version of a package.
    pub revision: Option<String>,
}

/// The kind of a [`Card`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardKind {
    /// `README.md`, with front matter in YAML.
    Readme,
    /// `METADATA` of a wheel, in the form of mail headers.
    WheelMetadata,
}

/// Returns the card of a source, or `None` where there is none.
///
/// Fetches the card alone: of a hub repository at the commit its files were or would be taken from, of a package
/// from its index. A card that was seen is kept in the cache beside the files.
///
/// # Errors
/// As [`resolve`](super::resolve); also where the index of a package cannot be asked for metadata alone.
pub fn card(source: &Source, resolver: &Resolver) -> Result<Option<Card>, SourceError> {
    let cache = Cache::new(&resolver.cache_dir);
    match source {
        Source::Folder(folder) => local(folder),
        Source::File(file) => file.parent().map_or(Ok(None), local),
        Source::Pypi { name, version, .. } => {
            let key = wheel_key(name, version);
            let found = match cache.lookup(&key, resolver.verify)? {
                Some(found) => found,
                None if resolver.offline => return Err(offline(source, resolver)),
                None => {
                    let metadata = pypi::ask_index(name, version, resolver)?;
                    record_wheel(&cache, name, version, &metadata)?
                }
            };
            read(CardKind::WheelMetadata, &found)
        }
        Source::Hub { kind, repo, revision, .. } => {
            let fetched = cache.lookup(&index_key(source, resolver), false)?;
            let commit = fetched.and_then(|fetched| fetched.revision);
            let key = |commit: &str| {
                let card = Source::Hub {
                    kind: *kind,
                    repo: repo.clone(),
                    revision: commit.to_owned(),
                    path: Some(README.to_owned()),
                };
                format!("card {}", index_key(&card, resolver))
            };
            let known = commit.as_deref().map(|commit| cache.lookup(&key(commit), resolver.verify));
            if let Some(found) = known.transpose()?.flatten() {
                return read(CardKind::Readme, &found);
            }
            if resolver.offline || resolver.hub.offline {
                return Err(offline(source, resolver));
            }
            let revision = commit.as_deref().unwrap_or(revision);
            let request = hub::Request { kind: *kind, repo, revision, path: Some(README) };
            let (file, commit) = hub::fetch_card(&request, resolver)?;
            let found = match file {
                Some(found) => found,
                None => nothing(&cache, README, &commit)?,
            };
            cache.record(&key(&commit), &found)?;
            read(CardKind::Readme, &found)
        }
    }
}

/// Keeps the metadata of a wheel for later questions.
pub(super) fn record_wheel(
    cache: &Cache,
    name: &str,
    version: &str,
    metadata: &[u8],
) -> Result<Resolved, SourceError> {
    let file = cache.insert("METADATA", |writer| Ok(std::io::Write::write_all(writer, metadata)?))?;
    let found = Resolved { root: file.path.clone(), files: vec![file], revision: Some(version.to_owned()) };
    cache.record(&wheel_key(name, version), &found)?;
    Ok(found)
}

fn wheel_key(name: &str, version: &str) -> String {
    format!("card pypi:{name}=={version}")
}

/// Stands for a card that is not there, so that nobody asks again.
fn nothing(cache: &Cache, name: &str, commit: &str) -> Result<Resolved, SourceError> {
    let file = cache.insert(name, |_| Ok(()))?;
    Ok(Resolved { root: file.path.clone(), files: vec![file], revision: Some(commit.to_owned()) })
}

fn local(folder: &Path) -> Result<Option<Card>, SourceError> {
    let path = folder.join(README);
    let text = if path.is_file() { head(&path)? } else { String::new() };
    Ok((!text.is_empty()).then_some(Card { kind: CardKind::Readme, text, revision: None }))
}

fn read(kind: CardKind, found: &Resolved) -> Result<Option<Card>, SourceError> {
    let text = head(&found.root)?;
    Ok((!text.is_empty()).then(|| Card { kind, text, revision: found.revision.clone() }))
}

fn head(path: &Path) -> Result<String, SourceError> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(LIMIT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn offline(source: &Source, resolver: &Resolver) -> SourceError {
    let cache_dir = resolver.cache_dir.clone();
    SourceError::Offline { source_text: format!("card of {source}"), cache_dir }
}
