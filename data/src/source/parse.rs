//! Reads source strings.

use std::path::{Path, PathBuf};

use super::error::SourceError;
use super::near::nearest;
use super::{HubKind, Source};

const PYPI_FORM: &str = "pypi:NAME==VERSION/path/in/wheel";
const MODEL_FORM: &str = "hf:org/name@revision";
const DATASET_FORM: &str = "hf:datasets/org/name@revision/path/in/repo";

impl Source {
    /// Reads a source string; relative paths start at `base_dir`, the recipe's folder.
    ///
    /// # Errors
    /// An unknown scheme, a string that does not follow its scheme's form, or a path that does not
    /// exist. Nothing is fetched.
    pub fn parse(text: &str, base_dir: &Path) -> Result<Self, SourceError> {
        match scheme(text) {
            Some(("pypi", rest)) => parse_pypi(text, rest),
            Some(("hf", rest)) => parse_hub(text, rest),
            Some((scheme, _)) => {
                Err(SourceError::UnknownScheme { scheme: scheme.to_owned(), text: text.to_owned() })
            }
            None => parse_path(text, base_dir),
        }
    }
}

/// Splits `scheme:rest`. One letter is a Windows drive, and `./a:b` is a path.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let named = scheme.len() > 1
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '_'));
    named.then_some((scheme, rest))
}

fn parse_pypi(text: &str, rest: &str) -> Result<Source, SourceError> {
    let fault = |fault| SourceError::Malformed { text: text.to_owned(), fault, expected: PYPI_FORM };
    let (requirement, member) = rest.split_once('/').ok_or_else(|| fault("names no file in the wheel"))?;
    let (name, version) = requirement.split_once("==").ok_or_else(|| fault("has no exact version"))?;
    // Both become an argument of pip: no option, marker or address may pass.
    let edge = |c: char| c.is_ascii_alphanumeric();
    let name_ok = name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !name_ok {
        return Err(fault("has an unusable package name"));
    }
    let version_ok = version.starts_with(edge)
        && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '!'));
    if !version_ok {
        return Err(fault("has an unusable version"));
    }
    if !is_inner_path(member) {
        return Err(fault("has an unusable path in the wheel"));
    }
    Ok(Source::Pypi { name: name.to_owned(), version: version.to_owned(), member: member.to_owned() })
}

fn parse_hub(text: &str, rest: &str) -> Result<Source, SourceError> {
    let (kind, rest, expected) = match rest.strip_prefix("datasets/") {
        Some(rest) => (HubKind::Dataset, rest, DATASET_FORM),
        None => (HubKind::Model, rest, MODEL_FORM),
    };
    let fault = |fault| SourceError::Malformed { text: text.to_owned(), fault, expected };
    let (repo, revision, path) = match rest.split_once('@') {
        None => (rest, "main", None),
        Some((repo, after)) => {
            let (revision, path) = split_revision(after);
            (repo, revision, path)
        }
    };
    let parts: Vec<&str> = repo.split('/').collect();
    if parts.len() > 2 {
        return Err(fault("has a path before its revision"));
    }
    if !parts.iter().all(|part| is_repo_part(part)) {
        return Err(fault("has an unusable repository name"));
    }
    if !is_inner_path(revision) || !is_url_plain(revision) {
        return Err(fault("has an unusable revision"));
    }
    if path.is_some_and(|path| !is_inner_path(path) || !is_url_plain(path)) {
        return Err(fault("has an unusable path in the repository"));
    }
    if kind == HubKind::Dataset && path.is_none() {
        return Err(fault("names no file of the data set"));
    }
    Ok(Source::Hub {
        kind,
        repo: repo.to_owned(),
        revision: revision.to_owned(),
        path: path.map(str::to_owned),
    })
}

/// Splits `revision/path`. Only `refs/convert/parquet` and `refs/pr/1` have slashes of their own.
fn split_revision(text: &str) -> (&str, Option<&str>) {
    let own_slashes = if text.starts_with("refs/") { 2 } else { 0 };
    match text.match_indices('/').nth(own_slashes) {
        Some((at, _)) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn is_repo_part(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && !part.contains("..")
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Tells whether a `/` separated path stays inside whatever it is joined to.
pub(super) fn is_inner_path(path: &str) -> bool {
    let inner = |part: &str| !matches!(part, "" | "." | "..");
    !path.contains(|c: char| c == '\\' || c.is_control())
        && path.split('/').all(inner)
        && !path.split('/').next().is_some_and(|first| first.ends_with(':'))
}

/// Tells whether a path may stand in an address as it is: the hub's client escapes nothing.
pub(super) fn is_url_plain(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%'))
}

fn parse_path(text: &str, base_dir: &Path) -> Result<Source, SourceError> {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    let path = match text.strip_prefix("~/").and_then(|rest| home().map(|home| home.join(rest))) {
        Some(path) => path,
        None => base_dir.join(text),
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    let Ok(metadata) = fs_err::metadata(&path) else {
        return Err(SourceError::MissingPath { similar: siblings(&path), path });
    };
    if text.is_empty() {
        return Err(SourceError::MissingPath { path, similar: Vec::new() });
    }
    if metadata.is_dir() {
        Ok(Source::Folder(path))
    } else if metadata.is_file() {
        Ok(Source::File(path))
    } else {
        Err(SourceError::NotAFile { path })
    }
}

/// Names beside a missing path that are near its own.
fn siblings(path: &Path) -> Vec<String> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Ok(entries) = fs_err::read_dir(parent) else { return Vec::new() };
    let names: Vec<String> =
        entries.flatten().take(10_000).filter_map(|entry| entry.file_name().into_string().ok()).collect();
    nearest(name, names.iter().map(String::as_str))
}
