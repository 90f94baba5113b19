//! `seedcorn train`: an adapter from a recipe.

use seedcorn_kernels::device;

use super::args::{self, Global};
use super::check;
use crate::build::{Prepared, prepare};
use crate::error::stderr_takes_colour;
use crate::log::{Progress, Verbosity, data_line, from_here};
use crate::merge::Merged;
use crate::parallel::binding::Binding;
use crate::parallel::{World, launch};
use crate::plan;
use crate::recipe::{self, Recipe};
use crate::run::{Finished, run_in};
use crate::stop::Stop;

pub(super) fn run(args: &args::Train, global: &Global) -> anyhow::Result<()> {
    let mut overrides = args.recipe.overrides.clone();
    overrides.extend(args.device.map(|device| format!("device={device}")));
    let mut recipe = recipe::load(&args.recipe.recipe, &overrides)?;
    let launch = launch::from_env()?;
    let on_this_machine = launch.as_ref().and_then(|launch| launch.on_this_machine).unwrap_or(1);
    recipe.settle_ranks(launch.as_ref().map(|launch| launch.ranks), on_this_machine)?;
    // Before anything is fetched: a device that is not there is a matter of the recipe.
    device::open(recipe.device)?;
    let world = World::join(launch.as_ref(), &recipe.parallel)?;
    let tied = launch.as_ref().and_then(Binding::of).and_then(|tied| tied.warning(on_this_machine));
    if let (true, Some(warning)) = (world.leads(), tied) {
        Progress::new(0, 0, global.verbosity()).warn(&warning);
    }
    let result = run_in_world(&world, recipe, args, global);
    world.end(result)
}

fn run_in_world(world: &World, recipe: Recipe, args: &args::Train, global: &Global) -> anyhow::Result<()> {
    // Rank 0 fetches, so that ranks with the same cache find what they need.
    if !world.leads() {
        world.meet("fetch")?;
    }
    let prepared = prepare(recipe, &super::resolver(global))?;
    // Every rank refuses what does not fit its machine.
    let short_of_memory = plan::before_a_run(&prepared, matches!(world, World::Processes { .. }));
    if world.leads() {
        world.meet("fetch")?;
        tell(&prepared, short_of_memory.as_ref().ok().and_then(Option::as_deref), args.dry_run, global)?;
    }
    short_of_memory?;
    if args.dry_run {
        return Ok(());
    }
    let stop = Stop::on_signals()?;
    let finished = run_in(world, &prepared, args.resume, global.verbosity(), &stop)?;
    match &finished {
        Some(finished) if global.verbosity() != Verbosity::Quiet => Ok(summary(&prepared, finished)?),
        _ => Ok(()),
    }
}

/// Says what is wrong with the data, and what the run will do.
fn tell(prepared: &Prepared, short: Option<&str>, dry_run: bool, global: &Global) -> anyhow::Result<()> {
    let told = Progress::new(prepared.steps, 0, global.verbosity());
    for warning in plan::warnings(prepared) {
        told.warn(&warning);
    }
    if let Some(short) = short {
        told.warn(short);
    }
    if dry_run {
        return check::print_plan(prepared);
    }
    for line in plan::lines(prepared) {
        told.note(&line);
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
