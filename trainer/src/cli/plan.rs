//! `seedcorn plan`: memory and traffic of each rank, item by item, before a weight is read.

use std::process::ExitCode;

use super::args::{self, Global};
use crate::build::prepare;
use crate::error::{Explained, report};
use crate::log::{MachineMemory, data_line};
use crate::plan::{Fit, Memory, Report, Subject, is_configuration_only};
use crate::recipe::{self, RankCount, Recipe};

pub(super) fn run(args: &args::Plan, global: &Global) -> anyhow::Result<ExitCode> {
    let mut recipe = recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    match args.mesh {
        // One rank on each machine, so that none shares its memory with others.
        Some([data, tensor]) => {
            recipe.parallel.data = RankCount::Exactly(data);
            recipe.parallel.tensor = tensor;
            recipe.settle_ranks(Some(recipe.parallel.mesh().ranks()), 1)?;
        }
        None => {
            recipe.settle_ranks(None, 1)?;
        }
    }
    let mut subject = subject(recipe, global)?;
    if let Some(memory) = args.memory {
        subject.on_a_machine_with(memory)?;
    }
    let all = rayon::current_num_threads();
    let threads = if args.mesh.is_some() { all } else { all.div_ceil(subject.ranks() as usize) };
    let of_one: fn(&Memory) -> u64 = |memory| memory.peak;
    let of_all: fn(&Memory) -> u64 = |memory| memory.peak_of_all;
    let needed = if args.mesh.is_some() { of_one } else { of_all };
    let memory = match (args.memory, args.mesh) {
        (Some(memory), _) => Some((memory, "the machine has")),
        (None, None) => MachineMemory::here().map(|machine| (machine.total, "this machine has")),
        // Machines that were not described.
        (None, Some(_)) => None,
    };
    let fit = memory.map(|(memory, _)| Fit::new(&subject, threads, memory, needed));
    let planned = Report::new(&subject, threads, args.mesh.is_none(), fit);
    if args.json {
        data_line(&serde_json::to_string_pretty(&planned)?)?;
    } else {
        planned.lines().iter().try_for_each(|line| data_line(line))?;
    }
    match (&planned.fit, memory) {
        (Some(fit), Some((_, place))) if !fit.fits => Ok(report(&Explained::from(fit.error(place)).into())),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn subject(recipe: Recipe, global: &Global) -> anyhow::Result<Subject> {
    let resolver = super::resolver(global);
    if let Some(folder) = is_configuration_only(&recipe.model.source) {
        let folder = folder.to_owned();
        return Subject::imagined(recipe, &folder, &resolver);
    }
    Ok(Subject::of(&prepare(recipe, &resolver)?))
}
