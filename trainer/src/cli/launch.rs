//! `seedcorn launch`: a run as several processes of this machine.

use std::ffi::OsString;

use clap::{Parser, ValueEnum};

use super::args::{self, Cli, Global, Verb, With};
use crate::error::{Exit, Explained, Told};
use crate::log::Verbosity;
use crate::parallel::launch;
use crate::parallel::start::{Start, StartError, Starter};
use crate::recipe;

pub(super) fn run(args: &args::Launch, global: &Global) -> anyhow::Result<()> {
    let Some(with) = args.with.or_else(|| With::value_variants().first().copied()) else {
        return Err(Explained::usage(
            "this program was built without a way for processes to reach each other",
        )
        .with_hint(format!(
            "build with `--features mpi`, or run the ranks as threads: `seedcorn train RECIPE --set \
                 parallel.data={}`",
            args.ranks
        ))
        .into());
    };
    if let Some(launch) = launch::from_env()? {
        let launch::Launch { rank, ranks, by, .. } = launch;
        return Err(Explained::usage(format!("this process is rank {rank} of {ranks} already ({by})"))
            .with_hint(format!("start `seedcorn train` from that launcher, or unset {by}"))
            .into());
    }
    let command = || std::iter::once(OsString::from("seedcorn")).chain(args.command.iter().cloned());
    let cli = match Cli::try_parse_from(command()) {
        Ok(cli) => cli,
        Err(error) => {
            error.print()?;
            return if error.use_stderr() { Err(Told(Exit::Usage).into()) } else { Ok(()) };
        }
    };
    let Verb::Train(train) = &cli.verb else {
        let verb = args.command[0].to_string_lossy();
        return Err(Explained::usage(format!("`{verb}` runs in one process; only `train` has ranks"))
            .with_hint(format!("run `seedcorn {verb}` without `launch`"))
            .into());
    };
    // Said once, and not by every rank.
    let mut recipe = recipe::load(&train.recipe.recipe, &train.recipe.overrides)?;
    let ranks = args.ranks as usize;
    recipe.settle_ranks(Some(ranks), ranks)?;

    let mut rank_args = for_each_rank(global, ranks);
    rank_args.extend(args.command.iter().cloned());
    let start = Start { program: std::env::current_exe()?, args: rank_args, ranks };
    let starter = match with {
        With::Mpi => Starter::Mpirun,
        With::Nccl => Starter::Processes,
    };
    match started(&start, starter) {
        Err(StartError::Failed(exit)) => Err(Told(exit).into()),
        result => Ok(result?),
    }
}

#[cfg(unix)]
fn started(start: &Start, starter: Starter) -> Result<(), StartError> {
    start.run(starter)
}

#[cfg(not(unix))]
fn started(_: &Start, _: Starter) -> Result<(), StartError> {
    Err(StartError::NoUnix)
}

/// Passes the flags of every verb on. Threads are those of all ranks.
fn for_each_rank(global: &Global, ranks: usize) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    if let Some(threads) = global.threads {
        args.extend(["--threads".into(), (threads as usize / ranks).max(1).to_string().into()]);
    }
    if global.offline {
        args.push("--offline".into());
    }
    match global.verbosity() {
        Verbosity::Quiet => args.push("--quiet".into()),
        Verbosity::Verbose => args.push("--verbose".into()),
        Verbosity::Normal => {}
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_shared_out() {
        let global = |line: &str| Cli::try_parse_from(line.split(' ')).expect("valid").global;
        let shown = |line: &str| for_each_rank(&global(line), 3).join(&OsString::from(" "));
        assert_eq!(
            shown("seedcorn --threads 8 -v --offline launch --ranks 3 -- train r"),
            "--threads 2 --offline --verbose"
        );
        assert_eq!(shown("seedcorn launch --ranks 3 --threads 2 -q -- train r"), "--threads 1 --quiet");
        // What stands behind the dashes is the rank's own.
        assert_eq!(shown("seedcorn launch --ranks 3 -- train r --threads 2"), "");
    }
}
