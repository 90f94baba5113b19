//! The ranks of a run, and how this process plays its own.

use std::convert::Infallible;
use std::ops::Range;
use std::time::Duration;

use super::launch::Launch;
use super::threads::{self, Failure, First};
use super::{Collective, Mesh, ParallelError, Processes, Ranks};
use crate::error::{Exit, Told, exit, report, report_from};
use crate::recipe::{self, differing_keys};
use crate::train::TrainError;

/// Ranks of one process at most: each has its own threads, gradients and activations.
const MOST_THREADS: usize = 256;

/// Where the ranks of a run are.
#[derive(Debug)]
pub enum World {
    /// All in this process.
    Threads {
        /// How they are laid out.
        mesh: Mesh,
        /// How much longer than expected a rank may take.
        timeout: Duration,
    },
    /// This process is one of them.
    Processes {
        /// How to reach the others.
        engine: Box<dyn Processes>,
        /// How they are laid out.
        mesh: Mesh,
        /// How much longer than expected a rank may take.
        timeout: Duration,
    },
}

impl World {
    /// All ranks in this process, as many as a recipe wants.
    pub fn here(parallel: &recipe::Parallel) -> World {
        let timeout = Duration::from_secs(parallel.timeout_seconds);
        World::Threads { mesh: parallel.mesh(), timeout }
    }

    /// Joins the ranks that a launcher has started; without one, all ranks are in this process.
    ///
    /// # Errors
    /// [`ParallelError::NoEngine`], or what the engine says.
    pub fn join(launch: Option<&Launch>, parallel: &recipe::Parallel) -> Result<World, ParallelError> {
        let Some(launch) = launch else {
            return match World::here(parallel) {
                World::Threads { mesh, .. } if mesh.ranks() > MOST_THREADS => {
                    Err(ParallelError::TooManyThreads { ranks: mesh.ranks(), most: MOST_THREADS })
                }
                world => Ok(world),
            };
        };
        let timeout = Duration::from_secs(parallel.timeout_seconds);
        Ok(World::Processes { engine: engine(launch)?, mesh: parallel.mesh(), timeout })
    }

    /// Returns how the ranks are laid out.
    pub fn mesh(&self) -> Mesh {
        match self {
            World::Threads { mesh, .. } | World::Processes { mesh, .. } => *mesh,
        }
    }

    /// Returns the ranks that this process plays.
    pub fn local_ranks(&self) -> Range<usize> {
        match self {
            World::Threads { mesh, .. } => 0..mesh.ranks(),
            World::Processes { engine, .. } => engine.rank()..engine.rank() + 1,
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
            World::Threads { mesh: Mesh { data: 1, tensor: 1 }, .. } => body(&Ranks::alone()),
            World::Threads { mesh, timeout } => {
                let body = |collective: &dyn Collective| body(&Ranks::new(collective, *mesh, *timeout));
                threads::run(mesh.ranks(), body, TrainError::is_common, abandon).map_err(explained)
            }
            World::Processes { engine, mesh, timeout } => {
                let ranks = Ranks::new(engine.as_ref(), *mesh, *timeout);
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

    /// Returns the least of what the processes have.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn least(&self, op: &'static str, own: usize) -> Result<usize, ParallelError> {
        let all = self.among_processes(|ranks| ranks.gather_slowly(op, &(own as u64).to_ne_bytes()))?;
        let numbers =
            all.into_iter().flatten().filter_map(|one| Some(u64::from_ne_bytes(one.try_into().ok()?)));
        Ok(numbers.min().map_or(own, |least| least as usize))
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
            World::Processes { engine, mesh, timeout } => {
                body(&Ranks::new(engine.as_ref(), *mesh, *timeout)).map(Some)
            }
        }
    }
}

/// MPI where the launcher starts MPI ranks, NCCL elsewhere; the one that there is in a build with one.
fn engine(launch: &Launch) -> Result<Box<dyn Processes>, ParallelError> {
    #[cfg(feature = "mpi")]
    if launch.starts_mpi || cfg!(not(feature = "nccl")) {
        return Ok(Box::new(super::mpi::Mpi::join(launch)?));
    }
    #[cfg(feature = "nccl")]
    return Ok(Box::new(super::nccl::Nccl::join(launch)?));
    #[cfg(not(feature = "nccl"))]
    {
        let Launch { rank, ranks, by, .. } = *launch;
        Err(ParallelError::NoEngine { rank, ranks, by })
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::threads::tests::as_processes;
    use crate::recipe::RankCount;

    /// Runs `body` as each of some processes.
    fn each<T: Send>(count: usize, body: impl Fn(usize, World) -> T + Sync) -> Vec<T> {
        let timeout = Duration::from_mins(1);
        std::thread::scope(|scope| {
            let ranks: Vec<_> = as_processes(count)
                .into_iter()
                .enumerate()
                .map(|(rank, engine)| {
                    let body = &body;
                    scope.spawn(move || {
                        body(rank, World::Processes { engine, mesh: Mesh::of_data(count), timeout })
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().expect("no panic")).collect()
        })
    }

    #[test]
    fn rank_0_hands_out() {
        let taken = each(3, |rank, world| {
            assert_eq!(world.leads(), rank == 0);
            let state = world.hand_out("resume", || b"state".to_vec()).expect("all are there");
            (state, world.hand_out("resume", Vec::new).expect("all are there"))
        });
        let state = Some(b"state".to_vec());
        assert_eq!(taken, [(None, None), (state.clone(), None), (state, None)]);
    }

    #[test]
    fn the_least_is_agreed_on() {
        assert_eq!(each(3, |rank, world| world.least("kept", 7 - rank).expect("all are there")), [5, 5, 5]);
        let here = World::Threads { mesh: Mesh { data: 1, tensor: 2 }, timeout: Duration::ZERO };
        assert_eq!(here.least("kept", 3).expect("no other process"), 3);
    }

    #[test]
    fn other_inputs_are_named_and_told_once() {
        let told = each(3, |rank, world| {
            let isa = if rank == 2 { "avx2" } else { "amx" };
            let inputs = format!("version = 1\n[device]\nisa = '{isa}'\n");
            let result = world.compare_inputs(&inputs).map_err(anyhow::Error::from);
            let text = result.as_ref().expect_err("rank 2 differs").to_string();
            let error = world.end(result).expect_err("the failure stays one");
            assert_eq!(exit(&error), Exit::Usage);
            (text, error.is::<Told>())
        });
        let text =
            "rank 2 has other inputs than rank 0: `device.isa` is \"avx2\" there and \"amx\" on rank 0";
        assert!(told.iter().all(|one| *one == (text.to_owned(), true)), "{told:?}");
        let same = each(2, |_, world| {
            world.compare_inputs("version = 1\n")?;
            world.end(Ok(()))
        });
        assert!(same.iter().all(Result::is_ok));
    }

    #[test]
    fn a_failure_of_one_ends_all() {
        let ended = each(2, |rank, world| {
            let end = std::panic::AssertUnwindSafe(|| {
                let result = world.run(|_| match rank {
                    0 => Ok(()),
                    _ => Err(TrainError::Log { step: 3, source: std::io::Error::other("no disk") }),
                });
                assert_eq!(result.is_ok(), rank == 0);
                (rank == 1).then(|| world.end(result.map_err(anyhow::Error::from)).is_ok())
            });
            std::panic::catch_unwind(end).is_err()
        });
        assert_eq!(ended, [false, true], "only the rank that failed ends the others");
    }

    #[test]
    fn replicas_that_differ_are_found() {
        let found = each(3, |rank, world| {
            world.run(|ranks| {
                ranks.compare(4, || [7; 32])?;
                let adapter = if rank == 1 { [8; 32] } else { [7; 32] };
                Ok(ranks.compare(5, || adapter)?)
            })
        });
        for error in found {
            let error = error.expect_err("rank 1 differs");
            assert!(error.is_common());
            assert_eq!(error.to_string(), "after step 5 rank 1 holds another adapter than rank 0");
        }
    }

    #[test]
    fn too_many_ranks_for_one_process() {
        let parallel = recipe::Parallel {
            data: RankCount::Exactly(257),
            tensor: 1,
            shard_base: false,
            timeout_seconds: 30,
            reduction: recipe::Reduction::Tree,
            on_this_machine: 1,
            launched: false,
        };
        let error = World::join(None, &parallel).expect_err("too many");
        assert_eq!(error.to_string(), "257 ranks are too many for one process, which may have 256");
    }
}
