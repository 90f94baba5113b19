//! Whether a run is what its lock says: files, inputs, and the first steps trained again.
//!
//! Nothing of the run is believed but the lock, and of the lock only what it says was claimed. A check that cannot
//! be made is told as such; the verdict is good when something was compared and nothing differs.

mod files;
mod inputs;
mod report;
mod rerun;
mod subject;

pub use report::{Check, Report, Status, Verdict};
pub use subject::Subject;

use std::path::PathBuf;

use seedcorn_data::source::Resolver;

use super::lock::Lock;
use crate::log::from_here;

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Options {
    /// Compares files only: inputs are not fetched, nothing is trained.
    pub files_only: bool,
    /// Trains so many of the first steps again; 0 trains none.
    pub steps: u64,
    /// Trains the whole run again.
    pub full: bool,
    /// Where the recipe's relative paths start, when not where the lock says.
    pub from: Option<PathBuf>,
    /// Where the run that `full` makes is kept.
    pub out: Option<PathBuf>,
}

/// Compares a run with its lock; `tell` hears of each check as it is made.
///
/// # Errors
/// Only what keeps the checks from being made at all, such as no room for temporary files.
pub fn verify(
    subject: &Subject,
    options: &Options,
    resolver: &Resolver,
    tell: &mut dyn FnMut(&Check),
) -> anyhow::Result<Verdict> {
    let mut report = Report::new(tell);
    let Some(path) = &subject.lock else {
        return Ok(report.finish());
    };
    let lock = match Lock::read(path) {
        Ok(lock) => lock,
        Err(error) => {
            report.failed("lock", inputs::with_causes(&error.into()));
            return Ok(report.finish());
        }
    };
    let digest = inputs::short_digest(&lock);
    report.ok("lock", format!("`{}`, whole (sha256 {digest}...)", from_here(path).display()));
    files::check(subject, &lock, &mut report);
    let folder = files::check_recipe(subject, &lock, options.from.as_deref(), &mut report);
    if options.files_only {
        return Ok(report.finish());
    }
    let prepared = inputs::check(&lock, &folder, resolver, &mut report);
    let Some(prepared) = prepared else {
        report.skipped("steps", "without the inputs of the lock nothing can be trained again");
        return Ok(report.finish());
    };
    if options.full {
        let scratch = tempfile::tempdir()?;
        let folder = options.out.clone().unwrap_or_else(|| scratch.path().join("run"));
        rerun::whole(&lock, prepared, &folder, &mut report);
    } else if options.steps > 0 {
        rerun::first_steps(&lock, &prepared, options.steps, &mut report);
    }
    Ok(report.finish())
}
