//! Which card and bill of materials an export gets: from the run that made it, or from what can be found of one.

use std::io;
use std::path::Path;

use seedcorn_adapters::folder::{BOM_FILE, CARD_FILE};
use seedcorn_adapters::peft;
use seedcorn_data::source::Resolver;
use serde_json::Value;

use super::export::{Export, Kind};
use super::found::Found;
use crate::base::Base;
use crate::error::Explained;
use crate::evidence::outputs::{self, EXPORTS, LOCK};
use crate::evidence::{self, File, Lock, ModelFiles};

/// Writes card and bill of materials into the adapter folder of a run. The lock must have its results; the hashes
/// of files in them are not read.
///
/// # Errors
/// A file that cannot be read or written.
pub fn beside_adapter(folder: &Path, lock: &Lock, config: &Value) -> anyhow::Result<()> {
    let files = adapter_files(folder)?;
    let run = Some(lock);
    write(
        &Export { kind: Kind::Adapter, base: &lock.model, config, run, adapter: &[], files: &files },
        folder,
    )
}

/// Writes card and bill of materials into the merged model of a run.
///
/// # Errors
/// As [`beside_adapter`].
pub fn beside_merged(folder: &Path, adapter: &Path, lock: &Lock, config: &Value) -> anyhow::Result<()> {
    let (adapter, files) = (adapter_files(adapter)?, merged_files(folder)?);
    let run = Some(lock);
    write(
        &Export { kind: Kind::Merged, base: &lock.model, config, run, adapter: &adapter, files: &files },
        folder,
    )
}

/// Writes card and bill of materials into a model that was merged from a base and the adapter in a folder. What the
/// lock of the adapter's run says goes along, if it lies in that folder or beside it.
///
/// # Errors
/// As [`beside_adapter`].
pub fn beside_merged_of(
    folder: &Path,
    base: &Base,
    adapter: &Path,
    resolver: &Resolver,
) -> anyhow::Result<()> {
    let (parts, files) = (adapter_files(adapter)?, merged_files(folder)?);
    let run = run_of(adapter, &parts);
    let base_files = evidence::files(&base.resolved);
    let known = run.as_ref().map(|run| &run.model).filter(|model| model.files == base_files);
    let base_files = match known {
        Some(model) => model.clone(),
        None => ModelFiles {
            source: base.name.clone(),
            revision: base.resolved.revision.clone(),
            tokenizer_sha256: String::new(),
            chat_template_sha256: None,
            files: base_files,
            adapter_files: Vec::new(),
            license: Found::of_base(base, resolver).statement().cloned(),
        },
    };
    let export = Export {
        kind: Kind::Merged,
        base: &base_files,
        config: &base.config,
        run: run.as_ref(),
        adapter: &parts,
        files: &files,
    };
    write(&export, folder)
}

/// Reads the lock in an adapter folder or beside it, if it is that of the run that wrote this very adapter.
fn run_of(adapter: &Path, parts: &[File]) -> Option<Lock> {
    let whole = fs_err::canonicalize(adapter).ok()?;
    let places = [Some(whole.join(LOCK)), whole.parent().map(|run| run.join(LOCK))];
    let lock = places.into_iter().flatten().find_map(|place| Lock::read(&place).ok())?;
    let listed = &lock.results.as_ref()?.files;
    let is_listed = |part: &File| {
        let name = format!("{}/{}", EXPORTS[0], part.name);
        listed.iter().any(|file| file.name == name && file.sha256 == part.sha256)
    };
    parts.iter().all(is_listed).then_some(lock)
}

fn write(export: &Export<'_>, folder: &Path) -> anyhow::Result<()> {
    export.write(folder).map_err(|error| {
        Explained::new(format!("could not write the card beside the export `{}`", folder.display()))
            .with_hint("free some space, then export again: what is there is whole")
            .caused_by(error)
            .into()
    })
}

fn adapter_files(folder: &Path) -> io::Result<Vec<File>> {
    outputs::hashed(folder, [peft::CONFIG_FILE, peft::MODEL_FILE].map(str::to_owned).to_vec())
}

/// Lists the files of a merged model, by name, without what is written after them.
fn merged_files(folder: &Path) -> io::Result<Vec<File>> {
    let mut names = outputs::names(folder)?;
    names.retain(|name| ![CARD_FILE, BOM_FILE].contains(&name.as_str()));
    outputs::hashed(folder, names)
}
