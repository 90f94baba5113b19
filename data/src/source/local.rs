//! Files and folders of the user, hashed at every start.

use std::path::Path;

use rayon::prelude::*;

use super::error::SourceError;
use super::hash::hash_file;
use super::layout::{CONFIG, INDEX, OPTIONAL, WEIGHTS, shards};
use super::{Resolved, ResolvedFile};

const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 16;

/// Resolves one file.
pub(super) fn file(path: &Path) -> Result<Resolved, SourceError> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let name = name.to_str().ok_or_else(|| SourceError::NotUtf8 { path: path.to_owned() })?;
    let file = hashed(name.to_owned(), path)?;
    Ok(Resolved { root: path.to_owned(), files: vec![file], revision: None })
}

/// Resolves a folder: the files of the model if it holds one in Hugging Face layout, else all files.
///
/// Hidden names are left out, and links to folders are not followed.
pub(super) fn folder(path: &Path) -> Result<Resolved, SourceError> {
    let mut names = model_names(path)?;
    if names.is_empty() {
        walk(path, "", 0, &mut names)?;
    }
    names.sort();
    let files = names
        .into_par_iter()
        .map(|name| {
            let file = path.join(&name);
            hashed(name, &file)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Resolved { root: path.to_owned(), files, revision: None })
}

fn hashed(name: String, path: &Path) -> Result<ResolvedFile, SourceError> {
    let (sha256, bytes) = hash_file(path)?;
    Ok(ResolvedFile { name, path: path.to_owned(), bytes, sha256 })
}

/// Lists the files of a model, or nothing if the folder is not one.
fn model_names(path: &Path) -> Result<Vec<String>, SourceError> {
    let has = |name: &&str| path.join(name).is_file();
    let weights: Vec<String> = if !has(&CONFIG) {
        return Ok(Vec::new());
    } else if has(&WEIGHTS) {
        vec![WEIGHTS.to_owned()]
    } else if has(&INDEX) {
        let mut names = vec![INDEX.to_owned()];
        names.extend(shards(&path.join(INDEX))?);
        names
    } else {
        return Ok(Vec::new());
    };
    if let Some(missing) = weights.iter().map(|name| path.join(name)).find(|path| !path.is_file()) {
        return Err(SourceError::MissingPath { path: missing, similar: Vec::new() });
    }
    let mut names = weights;
    names.push(CONFIG.to_owned());
    names.extend(OPTIONAL.iter().filter(|name| has(name)).map(|name| (*name).to_owned()));
    Ok(names)
}

fn walk(root: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) -> Result<(), SourceError> {
    let too_large = |limit, what| Err(SourceError::FolderTooLarge { path: root.to_owned(), limit, what });
    if depth > MAX_DEPTH {
        return too_large(MAX_DEPTH, "levels of folders");
    }
    for entry in fs_err::read_dir(root.join(prefix))? {
        let entry = entry?;
        let name =
            entry.file_name().into_string().map_err(|_| SourceError::NotUtf8 { path: entry.path() })?;
        if name.starts_with('.') {
            continue;
        }
        let inner = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        if entry.file_type()?.is_dir() {
            walk(root, &inner, depth + 1, names)?;
        } else if fs_err::metadata(entry.path())?.is_file() {
            names.push(inner);
        }
        if names.len() > MAX_FILES {
            return too_large(MAX_FILES, "files");
        }
    }
    Ok(())
}
