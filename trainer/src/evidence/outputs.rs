//! The files of a run's folder, as the lock lists them.

use std::io;
use std::path::Path;

use rayon::prelude::*;
use seedcorn_data::source::hash_file;

use super::lock::File;

/// Name of the lock in the folder of a run and of each export.
pub const LOCK: &str = "run.lock";
/// Name of a signature in the folder it signs.
pub const SIGNATURE: &str = "model.sig";
/// Folders below a run that hold a copy of its lock, so that what is published alone can be checked too.
pub const EXPORTS: [&str; 2] = ["adapter", "merged"];
/// Files below a folder, at most: a run has a handful for each checkpoint and export.
const MAX_FILES: usize = 100_000;

/// Names the files below a folder, sorted, with `/` between parts: all but locks, signatures at the top of the run
/// or an export, and hidden names.
pub fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    walk(folder, "", &mut names)?;
    names.sort();
    Ok(names)
}

fn walk(root: &Path, prefix: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs_err::read_dir(root.join(prefix))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let inner = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        if entry.file_type()?.is_dir() {
            walk(root, &inner, names)?;
        } else if !is_evidence(&inner) {
            names.push(inner);
        }
        if names.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
    }
    Ok(())
}

/// Whether a name is that of a lock or a signature, which no lock can list.
fn is_evidence(name: &str) -> bool {
    let own = EXPORTS.iter().find_map(|folder| name.strip_prefix(folder)?.strip_prefix('/'));
    [LOCK, SIGNATURE].contains(&own.unwrap_or(name))
}

/// Hashes files of a folder on all threads.
pub fn hashed(folder: &Path, names: Vec<String>) -> io::Result<Vec<File>> {
    let hash = |name: String| {
        let (sha256, bytes) = hash_file(&folder.join(&name))?;
        Ok(File { name, bytes, sha256 })
    };
    names.into_par_iter().map(hash).collect()
}
