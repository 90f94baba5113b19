//! `seedcorn check`: everything that can be known of a run before a weight is read.

use super::args::{self, Global};
use crate::build::{Prepared, prepare};
use crate::checkpoint::Output;
use crate::log::{Progress, data_line};
use crate::{plan, recipe};

pub(super) fn run(args: &args::Recipe, global: &Global) -> anyhow::Result<()> {
    let mut recipe = recipe::load(&args.recipe, &args.overrides)?;
    recipe.settle_ranks(None, 1)?;
    let prepared = prepare(recipe, &super::resolver(global))?;
    let told = Progress::new(prepared.steps, 0, global.verbosity());
    for warning in plan::warnings(&prepared) {
        told.warn(&warning);
    }
    if let Some(warning) = plan::before_a_run(&prepared, false)? {
        told.warn(&warning);
    }
    if let Some(found) = Output::trace(&prepared.recipe.output) {
        let folder = prepared.recipe.output.display();
        told.warn(&format!("the output folder `{folder}` holds a run (`{found}`): `train` needs `--resume`"));
    }
    print_plan(&prepared)?;
    Ok(data_line("ok")?)
}

/// Prints what a run would do.
pub(super) fn print_plan(prepared: &Prepared) -> anyhow::Result<()> {
    for line in plan::lines(prepared) {
        data_line(&line)?;
    }
    Ok(())
}
