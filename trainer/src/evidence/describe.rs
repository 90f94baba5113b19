//! Fills in a lock from a prepared run.

use std::io;
use std::path::{Component, Path, PathBuf};

use seedcorn_data::Statistics;
use seedcorn_data::source::{Resolved, hash_file, hash_text};

use super::lock::{DataFiles, Device, File, Lock, ModelFiles, Order, Samples, Source};
use crate::build::Prepared;
use crate::provenance::Found;
use crate::recipe::DataSource;

/// Describes every input of a run: what decides its bits, before the first step.
///
/// # Errors
/// An epoch without samples, a recipe that has gone.
pub fn describe(prepared: &Prepared) -> anyhow::Result<Lock> {
    let Prepared { recipe, base, dataset, .. } = prepared;
    let parts = base.tokenizer.as_ref().map(seedcorn_data::Tokenizer::parts);
    let model = ModelFiles {
        source: recipe.model.source.typed().to_owned(),
        revision: base.resolved.revision.clone(),
        tokenizer_sha256: parts.map_or_else(String::new, |parts| hash_text(&parts.tokenizer_json)),
        chat_template_sha256: parts.and_then(|parts| parts.chat_template.as_deref()).map(hash_text),
        files: files(&base.resolved),
        adapter_files: prepared.adapter_files.as_ref().map(files).unwrap_or_default(),
        license: prepared.licences.model.statement().cloned(),
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
        train: sources(&recipe.data.train, train_files, train_records, &prepared.licences.train),
        eval: sources(
            &recipe.data.eval,
            eval_files,
            eval_only.map(|one| one.statistics.records),
            &prepared.licences.eval,
        ),
    };
    let samples = samples(prepared)?;
    let recipe_file = recipe.file.as_deref().map(|file| recipe_file(file, &recipe.output)).transpose()?;
    Ok(Lock { recipe_file, ..Lock::new(recipe, Device::of(recipe.device), model, data, samples) })
}

/// Names the recipe's file from the folder of the run, so that it is found again when both move together.
fn recipe_file(file: &Path, output: &Path) -> io::Result<File> {
    let (sha256, bytes) = hash_file(file)?;
    let whole = fs_err::canonicalize(file)?;
    let name = pathdiff::diff_paths(&whole, whole_path(output)?).unwrap_or(whole);
    Ok(File { name: name.to_string_lossy().into_owned(), bytes, sha256 })
}

/// Returns the path of a folder that may not be there yet, from the root and without `..`.
fn whole_path(folder: &Path) -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in std::path::absolute(folder)?.components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
        // As far as it is there, links are followed, so that `..` leads where it does for the system.
        path = fs_err::canonicalize(&path).unwrap_or(path);
    }
    Ok(path)
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
            train_sha256: hash_text(&format!("{digest}{}", stream.order_digest()?)),
            eval_sha256: (eval > 0).then_some(digest),
        },
    })
}

fn sources(
    typed: &[DataSource],
    resolved: &[Resolved],
    records: impl Iterator<Item = u64>,
    licences: &[Found],
) -> Vec<Source> {
    let all = typed.iter().zip(resolved).zip(records).zip(licences);
    all.map(|(((typed, resolved), records), licences)| Source {
        source: typed.source.typed().to_owned(),
        revision: resolved.revision.clone(),
        records,
        files: files(resolved),
        license: licences.statement().cloned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_named_from_a_folder_that_is_not_there_yet() {
        let root = tempfile::tempdir().expect("temp folder");
        let recipe = root.path().join("recipes/x/recipe.toml");
        fs_err::create_dir_all(recipe.parent().expect("a folder")).expect("made");
        fs_err::write(&recipe, "version = 1\n").expect("written");
        let output = root.path().join("recipes/x/../../runs/x");
        assert_eq!(recipe_file(&recipe, &output).expect("named").name, "../../recipes/x/recipe.toml");
        fs_err::create_dir_all(&output).expect("made");
        assert_eq!(recipe_file(&recipe, &output).expect("named").name, "../../recipes/x/recipe.toml");
    }
}
