//! `seedcorn train`: an adapter from a recipe.

use super::args::{self, Global};
use super::check;
use crate::build::{Prepared, prepare};
use crate::error::stderr_takes_colour;
use crate::log::{Progress, Verbosity, data_line, from_here};
use crate::merge::Merged;
use crate::run::{Finished, run as run_prepared};
use crate::stop::Stop;
use crate::{plan, recipe};

pub(super) fn run(args: &args::Train, global: &Global) -> anyhow::Result<()> {
    let mut recipe = recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    recipe.settle_ranks(None, 1)?;
    let prepared = prepare(recipe, &super::resolver(global))?;
    let told = Progress::new(prepared.steps, 0, global.verbosity());
    for warning in plan::warnings(&prepared) {
        told.warn(&warning);
    }
    if let Some(warning) = plan::before_a_run(&prepared)? {
        told.warn(&warning);
    }
    if args.dry_run {
        return check::print_plan(&prepared);
    }
    for line in plan::lines(&prepared) {
        told.note(&line);
    }
    drop(told);
    let stop = Stop::on_signals()?;
    let finished = run_prepared(&prepared, args.resume, global.verbosity(), &stop)?;
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
