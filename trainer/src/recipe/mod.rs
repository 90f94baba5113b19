//! Recipes: what a run is, as data, then as values that have been checked.
//!
//! Two stages. [`RecipeFile`] is what was typed and nothing else; unknown keys, wrong types and unknown words
//! are refused with the key, the file and the line. [`Recipe`] has every default filled in and has passed all
//! checks that need no other file. A recipe serialises to TOML that is itself a recipe: the lock holds it.
//!
//! A path is relative to where it is written: the recipe's folder in a recipe, the working folder in `--set`.

mod byte_size;
mod choice;
mod digest;
mod error;
mod file;
mod licence;
mod location;
mod parse;
mod rank_count;
mod resolve;
mod schema;
mod set;
mod settings;
mod suggest;
#[cfg(test)]
mod tests;

pub use byte_size::{ByteSize, shown as shown_bytes};
pub use choice::{
    Activation, AdapterKind, Compute, Format, Merged, OnLong, OptimizerKind, Quantize, Reduction,
    ScheduleKind, TrainOn, Unknown,
};
pub(crate) use digest::keep_what_decides;
pub use digest::{differing_keys, digest_of};
pub use error::{At, RecipeError};
pub use file::{
    AdapterFile, CheckpointFile, DataFile, EvalFile, ExportFile, LogFile, ModelFile, OptimizerFile,
    ParallelFile, PolicyFile, RecipeFile, ScheduleFile, SourceFile, Targets, TrainFile,
};
pub use location::Location;
pub use parse::{Typed, parse, read};
pub use rank_count::RankCount;
pub use settings::{
    Adapter, AdapterStart, Checkpoint, Data, DataSource, Eval, Export, Length, Log, LoraShape, Model,
    Optimizer, Parallel, Policy, Recipe, Schedule, Train,
};
pub use suggest::{list, nearest};

use std::path::Path;

/// Reads a recipe, applies `--set key=value` overrides in order, fills in defaults and checks everything that
/// needs no other file.
pub fn load(path: &Path, overrides: &[String]) -> Result<Recipe, RecipeError> {
    let recipe = Recipe::resolve(read(path, overrides)?)
        .map_err(|fault| RecipeError::Meaning { path: path.to_owned(), fault: Box::new(fault) })?;
    Ok(Recipe { file: Some(path.to_owned()), ..recipe })
}

/// Reads the recipe that a lock holds; its paths start at `folder`.
pub fn from_lock(table: &toml::Table, folder: &Path) -> Result<Recipe, RecipeError> {
    let text = toml::to_string(table).expect("a table of plain values can be written");
    let path = folder.join("run.lock");
    Recipe::resolve(parse(&text, &path, &[])?)
        .map_err(|fault| RecipeError::Meaning { path, fault: Box::new(fault) })
}

/// Lists every key a recipe may hold, with dots (`adapter.rank`, `data.train.source`).
pub fn known_keys() -> Vec<String> {
    schema::Node::of::<RecipeFile>().dotted()
}
