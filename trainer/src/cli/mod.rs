//! The command line: one file a verb.

pub mod args;
mod check;
mod doctor;
mod eval;
mod generate;
mod inspect;
mod launch;
mod merge;
mod model;
mod plan;
mod report;
mod sign;
mod train;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use seedcorn_data::source::Resolver;
use seedcorn_kernels::{heap, isa};

use self::args::{Cli, Global, Verb};
use crate::error::{self, Explained};
use crate::log::Verbosity;
use crate::parallel::{self, binding::Binding};

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let Cli { verb, global } = Cli::parse();
    match prepare_process(&verb, &global).and_then(|()| dispatch(verb, &global)) {
        Ok(code) => code,
        Err(error) => error::report(&error),
    }
}

fn dispatch(verb: Verb, global: &Global) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Train(args) => train::run(&args, global),
        Verb::Launch(args) => launch::run(&args, global),
        Verb::Check(args) => check::run(&args, global),
        Verb::Inspect(args) => inspect::run(&args, global),
        Verb::Merge(args) => merge::run(&args, global),
        Verb::Eval(args) => eval::run(&args, global),
        Verb::Generate(args) => generate::run(&args, global),
        Verb::Plan(args) => return plan::run(&args, global),
        Verb::Verify(args) => return verify::run(&args, global),
        Verb::Sign(args) => sign::run(&args, global),
        Verb::Report(args) => report::run(&args, global),
        Verb::Doctor => Ok(doctor::run(global)?),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Settles what holds for the whole process: the allocator, the instruction tier, the number of threads, the log.
fn prepare_process(verb: &Verb, global: &Global) -> anyhow::Result<()> {
    heap::keep_freed();
    if let Verb::Verify(args) = verb {
        verify::prefer_tier(args);
    }
    isa::check().map_err(|error| Explained::usage(error.to_string()).with_hint(error.hint()))?;
    if let Some(threads) = global.threads.map(|threads| threads as usize).or_else(|| fair_threads(verb)) {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    Ok(())
}

/// Returns this process's share of the threads, where a launcher has started several ranks on this machine.
fn fair_threads(verb: &Verb) -> Option<usize> {
    let Verb::Train(_) = verb else { return None };
    // A launcher that makes no sense is reported by the verb.
    let launch = parallel::launch::from_env().ok()??;
    let here = launch.on_this_machine?;
    let available = std::thread::available_parallelism().ok()?.get();
    // A process that was tied to its processors has them for itself.
    let others = if Binding::of(&launch).is_some() { 1 } else { here };
    Some((available / others).max(1))
}

/// Returns how sources are found: the environment's settings and the flags of every verb.
fn resolver(global: &Global) -> Resolver {
    let mut resolver = Resolver::from_env();
    resolver.offline |= global.offline;
    resolver.progress = global.verbosity() != Verbosity::Quiet;
    resolver
}
