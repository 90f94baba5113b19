//! The files of a folder, as the format sees them.
//!
//! Names are relative to the folder, `/` separated, UTF-8. Folders count only through their files. Symbolic links
//! are followed for files, if at all; the reference implementation leaves out what is behind a link to a folder, so
//! here such a link is a fault, lest unsigned files look signed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::FileType;
use std::path::{Component, Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::error::SignatureError;
use super::findings::{Fault, Finding};

/// Names at the top of a folder that belong to git and are not signed.
pub const GIT_NAMES: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// What is looked at in a folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Names that are left out, with all below them.
    pub ignored: BTreeSet<String>,
    /// Names that are looked at even where they are ignored.
    pub listed: BTreeSet<String>,
    /// Whether symbolic links to files are followed.
    pub links: bool,
}

impl Rules {
    /// Whether a name is left out; a folder that holds a listed file is not.
    fn ignores(&self, name: &str) -> bool {
        within(&self.ignored, name) && !self.lists_at_or_below(name)
    }

    /// Whether a name, or a file below it, is listed.
    pub(super) fn lists_at_or_below(&self, name: &str) -> bool {
        let below = format!("{name}/");
        self.listed.contains(name)
            || self.listed.range(below.clone()..).next().is_some_and(|listed| listed.starts_with(&below))
    }
}

/// Whether a name or a folder above it is in a set.
fn within(names: &BTreeSet<String>, name: &str) -> bool {
    names.contains(name) || name.match_indices('/').any(|(at, _)| names.contains(&name[..at]))
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Files to hash.
    pub files: BTreeMap<String, Found>,
    /// What was left out; of a folder only its name.
    pub ignored: Vec<String>,
    /// What is neither.
    pub odd: Vec<Finding>,
}

/// A file.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Whether it is a link to a file outside the folder.
    pub outside: bool,
}

/// Lists a folder.
pub(super) fn list(folder: &Path, rules: &Rules) -> Result<Listing, SignatureError> {
    if !folder.is_dir() {
        return Err(SignatureError::NotAFolder { path: folder.to_owned() });
    }
    let root = fs_err::canonicalize(folder).map_err(SignatureError::read(folder))?;
    let mut listing = Listing::default();
    let mut walk = WalkDir::new(&root).min_depth(1).follow_links(false).into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_owned();
            let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("links in a circle"));
            SignatureError::Read { path, source }
        })?;
        let kind = entry.file_type();
        let Some(name) = relative(entry.path(), &root) else {
            let name =
                entry.path().strip_prefix(&root).unwrap_or(entry.path()).to_string_lossy().into_owned();
            // Only what is looked at can have a wrong name.
            if within(&rules.ignored, &name) {
                listing.ignored.push(name);
            } else {
                listing.odd.push(Finding { name, fault: Fault::NotUtf8 });
            }
            if kind.is_dir() {
                walk.skip_current_dir();
            }
            continue;
        };
        if rules.ignores(&name) {
            if kind.is_dir() {
                walk.skip_current_dir();
            }
            listing.ignored.push(name);
        } else if !kind.is_dir() {
            match look(&entry, kind, &root, rules.links) {
                Ok(found) => drop(listing.files.insert(name, found)),
                Err(fault) => listing.odd.push(Finding { name, fault }),
            }
        }
    }
    // A folder is read in any order.
    listing.ignored.sort();
    listing.odd.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(listing)
}

/// Tells what a path that is no folder is.
fn look(entry: &DirEntry, kind: FileType, root: &Path, links: bool) -> Result<Found, Fault> {
    let unreadable = |error: &dyn std::error::Error| Fault::Unreadable { reason: error.to_string() };
    let path = entry.path();
    if kind.is_file() {
        let bytes = entry.metadata().map_err(|error| unreadable(&error))?.len();
        return Ok(Found { path: path.to_owned(), bytes, outside: false });
    }
    if !kind.is_symlink() {
        return Err(Fault::Special);
    }
    if !links {
        return Err(Fault::Link);
    }
    let target = fs_err::canonicalize(path).map_err(|_| Fault::BrokenLink)?;
    let metadata = fs_err::metadata(&target).map_err(|error| unreadable(&error))?;
    if metadata.is_dir() {
        return Err(Fault::LinkedFolder);
    }
    if !metadata.is_file() {
        return Err(Fault::Special);
    }
    let outside = !target.starts_with(root);
    Ok(Found { path: target, bytes: metadata.len(), outside })
}

/// Writes a path as the format does; none if it is not UTF-8 or not below the folder.
pub(super) fn relative(path: &Path, folder: &Path) -> Option<String> {
    let mut name = String::new();
    for part in path.strip_prefix(folder).ok()?.components() {
        let Component::Normal(part) = part else { return None };
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(part.to_str()?);
    }
    (!name.is_empty()).then_some(name)
}

/// Returns the name that a file has, or will have, in a folder; none if it is elsewhere.
pub(super) fn name_in(folder: &Path, file: &Path) -> Option<String> {
    let above = file.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs_err::canonicalize(folder).ok()?;
    relative(&fs_err::canonicalize(above).ok()?.join(file.file_name()?), &folder)
}
