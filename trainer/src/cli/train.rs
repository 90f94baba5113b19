//! `seedcorn train`: an adapter from a recipe.

use std::path::{Path, PathBuf};

use super::args::{self, Global};
use super::check;
use crate::build::{Prepared, prepare};
use crate::error::stderr_takes_colour;
use crate::log::{Progress, Verbosity, data_line};
use crate::merge::Merged;
use crate::run::{Finished, run as run_prepared};
use crate::{plan, recipe};

pub(super) fn run(args: &args::Train, global: &Global) -> anyhow::Result<()> {
    let recipe = recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let prepared = prepare(recipe, &super::resolver(global))?;
    let told = Progress::new(prepared.steps, 0, global.verbosity());
    for warning in plan::warnings(&prepared) {
        told.warn(&warning);
    }
    if args.dry_run {
        return check::print_plan(&prepared);
    }
    for line in plan::lines(&prepared) {
        told.note(&line);
    }
    drop(told);
    let finished = run_prepared(&prepared, args.resume, global.verbosity())?;
    if global.verbosity() != Verbosity::Quiet {
        summary(&prepared, &finished)?;
    }
    Ok(())
}

/// Prints what came out, and what to do with it.
fn summary(prepared: &Prepared, finished: &Finished) -> std::io::Result<()> {
    let bold = |text: &str| {
        let style = anstyle::Style::new().bold();
        if stderr_takes_colour() { format!("{style}{text}{style:#}") } else { text.to_owned() }
    };
    if finished.last_eval.is_some() {
        data_line("")?;
    }
    match (&finished.first_eval, &finished.last_eval) {
        (Some(before), Some(after)) => data_line(&format!(
            "held-out loss: {:.4} before, {:.4} after {} steps",
            before.loss(),
            after.loss(),
            finished.steps
        ))?,
        (None, Some(after)) => {
            data_line(&format!("held-out loss: {:.4} after {} steps", after.loss(), finished.steps))?;
        }
        _ => {}
    }
    if let Some([before, after]) = &finished.shown {
        data_line("")?;
        for (what, text) in [
            ("question", &before.question),
            ("in the data", &before.expected),
            ("before", &before.answer),
            ("after", &after.answer),
        ] {
            data_line(&format!("{}: {text}", bold(what)))?;
        }
    }
    data_line("")?;
    let adapter = from_here(&finished.adapter);
    let adapter = adapter.display();
    data_line(&format!("adapter: {adapter} (read back, same logits)"))?;
    for line in finished.merged.iter().flat_map(Merged::lines) {
        data_line(&line)?;
    }
    data_line(&format!("report: {}", from_here(&finished.report).display()))?;
    let model = prepared.recipe.model.source.resolved();
    if prepared.base.tokenizer.is_none() {
        let merged = prepared.recipe.output.join("merged");
        let merged = merged.display();
        return data_line(&format!("next: seedcorn merge {adapter} --base '{model}' --out {merged}"));
    }
    let question = finished.shown.as_ref().map_or("Hello", |[shown, _]| shown.question.as_str());
    let quoted = question.replace('\'', "'\\''");
    data_line(&format!("next: seedcorn generate '{model}' --adapter {adapter} --prompt '{quoted}'"))
}

/// Writes a path without `..`, from the working folder where it lies below it.
fn from_here(path: &Path) -> PathBuf {
    let Ok(whole) = fs_err::canonicalize(path) else { return path.to_owned() };
    let here = std::env::current_dir().and_then(fs_err::canonicalize);
    here.ok().and_then(|here| Some(whole.strip_prefix(here).ok()?.to_owned())).unwrap_or(whole)
}
