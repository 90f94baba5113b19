//! `report.html`: a run on one page that needs nothing else, made from what lies in the run's folder.
//!
//! Numbers come from `run.lock`, `metrics.jsonl` and `report.json`; texts of these pass the template's escaping, and
//! the page's policy lets a browser load nothing and run nothing but the page's own script. Part by part in
//! `docs/report.md`.

mod chart;
mod curves;
mod facts;
mod figures;
mod files;
mod lengths;
mod numbers;
mod page;
mod scale;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use self::page::Page;
use crate::checkpoint::atomic;
use crate::error::Explained;
use crate::evidence::Lock;
use crate::log::Rows;

pub use self::facts::{Answer, Facts, FactsFile, Histogram, Memory, Model, Start};

/// Name of the page in a run's folder.
pub const FILE: &str = "report.html";

/// Writes the page of the run in `folder`, finished or not, and returns its path.
///
/// # Errors
/// A folder without a readable `run.lock`, or one that cannot be read or written.
pub fn write(folder: &Path) -> anyhow::Result<PathBuf> {
    let lock = folder.join("run.lock");
    if !lock.exists() {
        let problem = format!("`{}` is not the folder of a run: it has no `run.lock`", folder.display());
        let hint = "name the folder that a recipe's `output` names, like `runs/quickstart`";
        return Err(Explained::usage(problem).with_hint(hint).into());
    }
    let lock = Lock::read(&lock)?;
    let path = folder.join(FILE);
    let fail = |source: io::Error| {
        let hint = "free some space, then make it with `seedcorn report`";
        Explained::new(format!("could not write `{}`", path.display())).with_hint(hint).caused_by(source)
    };
    let rows = Rows::read(&folder.join("metrics.jsonl"))?;
    let facts = facts::read(folder)?;
    let html = Page::new(&lock, &rows, facts.as_ref()).render()?;
    atomic::write_file(&path, html.as_bytes()).map_err(fail)?;
    Ok(path)
}
