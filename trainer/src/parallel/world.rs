//! The ranks of a run, and how this process plays its own.

use std::convert::Infallible;
use std::time::Duration;

use super::threads::{self, Failure, First};
use super::{Collective, ParallelError, Ranks};
use crate::error::{Exit, report};
use crate::recipe::{self, RankCount};
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

    /// Runs `body` as every rank of this process, and returns what rank 0 gives.
    ///
    /// # Errors
    /// What the ranks have in common, or [`TrainError::Parallel`] with the rank that failed.
    pub fn run<T: Send>(
        &self,
        body: impl Fn(&Ranks) -> Result<T, TrainError> + Sync,
    ) -> Result<T, TrainError> {
        match *self {
            World::Threads { ranks: 1, .. } => body(&Ranks::alone()),
            World::Threads { ranks, timeout } => {
                let body = |collective: &dyn Collective| body(&Ranks::new(collective, timeout));
                threads::run(ranks, body, TrainError::is_common, abandon).map_err(explained)
            }
        }
    }
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
