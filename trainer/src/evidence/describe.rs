//! Fills in a lock from a prepared run.

use std::io;
use std::path::Path;

use seedcorn_data::Statistics;
use seedcorn_data::source::{Resolved, hash_file};

use super::lock::{DataFiles, Device, File, Lock, ModelFiles, Order, Samples, Source};
use crate::build::Prepared;
use crate::recipe::{DataSource, sha256_hex};

/// Describes every input of a run: what decides its bits, before the first step.
///
/// # Errors
/// An epoch without samples, a recipe that has gone.
pub fn describe(prepared: &Prepared) -> anyhow::Result<Lock> {
    let Prepared { recipe, base, dataset, .. } = prepared;
    let parts = base.tokenizer.as_ref().map(seedcorn_data::Tokenizer::parts);
    let digest = |text: &str| sha256_hex(text.as_bytes());
    let model = ModelFiles {
        source: recipe.model.source.typed().to_owned(),
        revision: base.resolved.revision.clone(),
        tokenizer_sha256: parts.map_or_else(String::new, |parts| digest(&parts.tokenizer_json)),
        chat_template_sha256: parts.and_then(|parts| parts.chat_template.as_deref()).map(digest),
        files: files(&base.resolved),
        adapter_files: prepared.adapter_files.as_ref().map(files).unwrap_or_default(),
    };
    let (train_files, eval_files) = prepared.data_files.split_at(recipe.data.train.len());
    let statistics = dataset.statistics();
    let held_out = |name: &str| {
        let eval = dataset.eval().iter().find(|source| source.name == name);
        eval.map_or(0, |source| source.statistics.records)
    };
    let train_records = statistics.iter().map(|one| one.records + held_out(&one.name));
    let eval_only = dataset.eval().iter().rev().take(eval_files.len()).rev();
    let data = DataFiles {
        train: sources(&recipe.data.train, train_files, train_records),
        eval: sources(&recipe.data.eval, eval_files, eval_only.map(|one| one.statistics.records)),
    };
    let samples = samples(prepared)?;
    let recipe_file = recipe.file.as_deref().map(|file| recipe_file(file, &recipe.output)).transpose()?;
    Ok(Lock { recipe_file, ..Lock::new(recipe, Device::this(), model, data, samples) })
}

/// Names the recipe's file from the folder of the run, so that it is found again when both move together.
fn recipe_file(file: &Path, output: &Path) -> io::Result<File> {
    let (sha256, bytes) = hash_file(file)?;
    // The folder of the run may not be there yet.
    let from = std::path::absolute(output)?;
    let from = fs_err::canonicalize(&from).unwrap_or(from);
    let whole = fs_err::canonicalize(file)?;
    let name = pathdiff::diff_paths(&whole, from).unwrap_or(whole).to_string_lossy().into_owned();
    Ok(File { name, bytes, sha256 })
}

fn samples(prepared: &Prepared) -> Result<Samples, seedcorn_data::Error> {
    let (dataset, stream) = (&prepared.dataset, &prepared.order);
    let (statistics, digest) = (dataset.statistics(), dataset.digest());
    let sum = |count: fn(&Statistics) -> u64| statistics.iter().map(count).sum();
    let eval: u64 = dataset.eval().iter().map(|source| source.samples.len() as u64).sum();
    Ok(Samples {
        train: sum(|one| one.samples),
        eval,
        truncated: sum(|one| one.truncated),
        dropped: sum(|one| one.dropped_long + one.dropped_truncated + one.dropped_untrained),
        tokens: sum(|one| one.tokens),
        trained_tokens: sum(|one| one.trained_tokens),
        sequences: stream.units_per_epoch(),
        total_steps: prepared.steps,
        order: Order {
            train_sha256: sha256_hex(format!("{digest}{}", stream.order_digest()?).as_bytes()),
            eval_sha256: (eval > 0).then_some(digest),
        },
    })
}

fn sources(typed: &[DataSource], resolved: &[Resolved], records: impl Iterator<Item = u64>) -> Vec<Source> {
    let all = typed.iter().zip(resolved).zip(records);
    all.map(|((typed, resolved), records)| Source {
        source: typed.source.typed().to_owned(),
        revision: resolved.revision.clone(),
        records,
        files: files(resolved),
    })
    .collect()
}

/// Lists resolved files with their hashes.
pub fn files(resolved: &Resolved) -> Vec<File> {
    let file = |file: &seedcorn_data::source::ResolvedFile| File {
        name: file.name.clone(),
        bytes: file.bytes,
        sha256: file.sha256.clone(),
    };
    resolved.files.iter().map(file).collect()
}
