//! The ranks of a run, and how this process plays its own.

use std::convert::Infallible;
use std::time::Duration;

use super::launch::Launch;
use super::threads::{self, Failure, First};
use super::{Collective, ParallelError, Processes, Ranks};
use crate::error::{Exit, Told, exit, report, report_from};
use crate::recipe::{self, RankCount, differing_keys};
use crate::train::TrainError;

/// Where the ranks of a run are.
#[derive(Debug)]
pub enum World {
    /// All in this process.
    Threads {
        /// How many.
        ranks: usize,
        /// How much longer than expected a rank may take.
        timeout: Duration,
    },
    /// This process is one of them.
    Processes {
        /// How to reach the others.
        engine: Box<dyn Processes>,
        /// How much longer than expected a rank may take.
        timeout: Duration,
    },
}

impl World {
    /// All ranks in this process, as many as a recipe wants.
    pub fn here(parallel: &recipe::Parallel) -> World {
        let ranks = match parallel.data {
            RankCount::Auto => 1,
            RankCount::Exactly(ranks) => ranks as usize,
        };
        World::Threads { ranks, timeout: Duration::from_secs(parallel.timeout_seconds) }
    }

    /// Joins the ranks that a launcher has started; without one, all ranks are in this process.
    ///
    /// # Errors
    /// [`ParallelError::NoEngine`], or what the engine says.
    pub fn join(launch: Option<&Launch>, parallel: &recipe::Parallel) -> Result<World, ParallelError> {
        let Some(launch) = launch else { return Ok(World::here(parallel)) };
        let timeout = Duration::from_secs(parallel.timeout_seconds);
        Ok(World::Processes { engine: engine(launch)?, timeout })
    }

    /// Returns the number of ranks.
    pub fn size(&self) -> usize {
        match self {
            World::Threads { ranks, .. } => *ranks,
            World::Processes { engine, .. } => engine.size(),
        }
    }

    /// Whether this process writes files and talks.
    pub fn leads(&self) -> bool {
        match self {
            World::Threads { .. } => true,
            World::Processes { engine, .. } => engine.rank() == 0,
        }
    }

    /// Runs `body` as every rank of this process, and returns what the first of them gives.
    ///
    /// # Errors
    /// What the ranks have in common, or [`TrainError::Parallel`] with the rank that failed.
    pub fn run<T: Send>(
        &self,
        body: impl Fn(&Ranks) -> Result<T, TrainError> + Sync,
    ) -> Result<T, TrainError> {
        match self {
            World::Threads { ranks: 1, .. } => body(&Ranks::alone()),
            World::Threads { ranks, timeout } => {
                let body = |collective: &dyn Collective| body(&Ranks::new(collective, *timeout));
                threads::run(*ranks, body, TrainError::is_common, abandon).map_err(explained)
            }
            World::Processes { engine, timeout } => {
                let ranks = Ranks::new(engine.as_ref(), *timeout);
                body(&ranks).map_err(|error| {
                    let (op, step) = ranks.last_call();
                    explained(First { rank: ranks.rank(), op, step, failure: Failure::Error(error) })
                })
            }
        }
    }

    /// Waits for the other processes, however long that takes.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn meet(&self, op: &'static str) -> Result<(), ParallelError> {
        self.among_processes(|ranks| ranks.meet(op, 0)).map(|_| ())
    }

    /// Hands what rank 0 has to the other processes, and returns what one of those is to take. Nothing to take is an empty
    /// message.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn hand_out(
        &self,
        op: &'static str,
        content: impl FnOnce() -> Vec<u8>,
    ) -> Result<Option<Vec<u8>>, ParallelError> {
        let taken = self.among_processes(|ranks| {
            let content = if ranks.leads() { content() } else { Vec::new() };
            Ok((ranks.leads(), ranks.from_leader(op, &content)?))
        })?;
        Ok(taken.filter(|(leads, message)| !leads && !message.is_empty()).map(|(_, message)| message))
    }

    /// Compares what decides the bits of a run, as TOML.
    ///
    /// # Errors
    /// [`ParallelError::OtherInputs`] on every rank, with the first rank that differs from rank 0.
    pub fn compare_inputs(&self, inputs: &str) -> Result<(), ParallelError> {
        let all = self.among_processes(|ranks| ranks.gather_slowly("inputs", inputs.as_bytes()))?;
        let Some(all) = all else { return Ok(()) };
        let Some(rank) = all.iter().position(|one| *one != all[0]) else { return Ok(()) };
        let text = |rank: usize| String::from_utf8_lossy(&all[rank]).into_owned();
        let keys = differing_keys(&text(0), &text(rank)).unwrap_or_default();
        let shown = |(key, first, other): (String, String, String)| {
            format!("`{key}` is {other} there and {first} on rank 0")
        };
        Err(ParallelError::OtherInputs { rank, differing: keys.into_iter().map(shown).collect() })
    }

    /// Ends this process's part. Processes that succeeded wait for each other; one that failed ends all others, unless all
    /// have the same failure, which rank 0 tells.
    ///
    /// # Errors
    /// That of the result, or [`Told`] once it was told.
    pub fn end<T>(self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        let World::Processes { engine, .. } = &self else { return result };
        let error = match result {
            Ok(value) => {
                self.meet("end")?;
                return Ok(value);
            }
            Err(error) => error,
        };
        let exit = exit(&error);
        if !is_common(&error) {
            report_from(Some(engine.rank()), &error);
            engine.end_all(exit);
        }
        if engine.rank() == 0 {
            report(&error);
        }
        self.meet("end")?;
        Err(Told(exit).into())
    }

    fn among_processes<T>(
        &self,
        body: impl FnOnce(&Ranks) -> Result<T, ParallelError>,
    ) -> Result<Option<T>, ParallelError> {
        match self {
            World::Threads { .. } => Ok(None),
            World::Processes { engine, timeout } => body(&Ranks::new(engine.as_ref(), *timeout)).map(Some),
        }
    }
}

#[cfg(feature = "mpi")]
fn engine(launch: &Launch) -> Result<Box<dyn Processes>, ParallelError> {
    Ok(Box::new(super::mpi::Mpi::join(launch)?))
}

#[cfg(not(feature = "mpi"))]
fn engine(launch: &Launch) -> Result<Box<dyn Processes>, ParallelError> {
    let Launch { rank, ranks, by, .. } = *launch;
    Err(ParallelError::NoEngine { rank, ranks, by })
}

/// Whether every rank comes to this error.
fn is_common(error: &anyhow::Error) -> bool {
    let of_loop = error.downcast_ref::<TrainError>().is_some_and(TrainError::is_common);
    of_loop || error.downcast_ref::<ParallelError>().is_some_and(ParallelError::is_common)
}

/// Says which rank failed, where the error itself does not.
fn explained(first: First<TrainError>) -> TrainError {
    let First { rank, op, step, failure } = first;
    match failure {
        Failure::Error(error) if error.is_common() => error,
        Failure::Error(error @ TrainError::Parallel(_)) => error,
        Failure::Error(error) => ParallelError::Failed { rank, op, step, source: Box::new(error) }.into(),
        Failure::Panic(text) => {
            ParallelError::Lost { rank, op, step, how: format!("it panicked: {text}") }.into()
        }
    }
}

/// Ends the process: a rank does not come back, and a thread cannot be ended alone.
#[expect(clippy::exit, reason = "nothing else ends a thread that hangs")]
fn abandon(first: First<TrainError>) -> Infallible {
    report(&explained(first).into());
    std::process::exit(Exit::Lost.code().into())
}
