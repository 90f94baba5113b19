//! What can go wrong between ranks.

use std::error::Error;

use crate::error::Exit;

/// A run of several ranks that cannot go on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum ParallelError {
    // How this process was started.
    #[error("`{found}` is set, but `{missing}` is not")]
    HalfLaunched { found: String, missing: String },
    #[error("`{name}` is `{found}`, which is not {must}")]
    BadVariable { name: String, found: String, must: &'static str },
    #[error("{by} say rank {rank} of {ranks}")]
    BadRank { rank: u64, ranks: u64, by: &'static str },
    #[error("this process is rank {rank} of {ranks} ({by}), but this program has no way to reach the others")]
    NoEngine { rank: usize, ranks: usize, by: &'static str },
    #[error(
        "this process is rank {rank} of {ranks} ({by}), but MPI has started rank {mpi_rank} of {mpi_ranks}"
    )]
    OtherMpi { rank: usize, ranks: usize, by: &'static str, mpi_rank: usize, mpi_ranks: usize },
    #[error("{ranks} ranks are too many for one process, which may have {most}")]
    TooManyThreads { ranks: usize, most: usize },
    #[error("rank {rank} has other inputs than rank 0: {}", differing.join("; "))]
    OtherInputs { rank: usize, differing: Vec<String> },

    // What happened on the way.
    #[error("rank {rank} was lost at `{op}` of step {step}: {how}")]
    Lost { rank: usize, op: &'static str, step: u64, how: String },
    #[error("rank {rank} panicked; this is a bug")]
    Panicked { rank: usize },
    #[error("rank {rank} failed after `{op}` of step {step}")]
    Failed {
        rank: usize,
        op: &'static str,
        step: u64,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("rank {rank} cannot reach the others at `{op}` of step {step}")]
    Unreachable {
        rank: usize,
        op: &'static str,
        step: u64,
        hint: Option<String>,
        exit: Exit,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("rank {rank} is out of step: at `{op}` of step {step} it sent {got}, expected {expected}")]
    OutOfStep { rank: usize, op: &'static str, step: u64, got: String, expected: String },
    #[error("after step {step} rank {rank} holds another adapter than rank 0")]
    Diverged { rank: usize, step: u64 },
}

impl ParallelError {
    /// Returns what to do next, where the cause does not say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::HalfLaunched { found, missing } => {
                Some(format!("set `{missing}` too, or unset `{found}` to run alone"))
            }
            Self::BadVariable { name, .. } => Some(format!("mend `{name}`, or unset it to run alone")),
            Self::BadRank { .. } => {
                Some("ranks count from 0; mend these variables, or unset them to run alone".to_owned())
            }
            Self::NoEngine { by, .. } => Some(format!(
                "build with `--features mpi` and start with `mpirun`, or unset {by} to run alone"
            )),
            Self::OtherMpi { .. } => Some(
                "start all ranks with `mpirun` or `srun --mpi=pmix`, and set no other rank variables (torchrun and \
                 indexed jobs start no MPI ranks)"
                    .to_owned(),
            ),
            Self::TooManyThreads { .. } => {
                Some("start them with `mpirun`, or set `parallel.data` to less".to_owned())
            }
            Self::OtherInputs { .. } => Some(
                "give every rank the same program, recipe, model and data, on machines with the same instruction \
                 tier (`seedcorn doctor`; `SEEDCORN_ISA` sets one for all)"
                    .to_owned(),
            ),
            Self::Lost { .. } => Some(
                "all ranks have ended; continue with `--resume`, on as many ranks as you like".to_owned(),
            ),
            Self::Unreachable { hint, .. } => hint.clone(),
            Self::Failed { .. } | Self::Panicked { .. } => None,
            Self::OutOfStep { .. } => {
                Some("start the same program with the same recipe as every rank".to_owned())
            }
            Self::Diverged { .. } => Some(
                "a rank computed wrong, by a fault of its machine or a bug; nothing was saved since, continue with \
                 `--resume` without that machine"
                    .to_owned(),
            ),
        }
    }

    /// Whether every rank comes to the same error at the same place, so that one of them may speak for all.
    pub fn is_common(&self) -> bool {
        matches!(self, Self::Diverged { .. } | Self::OtherInputs { .. })
    }

    /// Returns how the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::HalfLaunched { .. }
            | Self::BadVariable { .. }
            | Self::BadRank { .. }
            | Self::NoEngine { .. }
            | Self::OtherMpi { .. }
            | Self::TooManyThreads { .. }
            | Self::OtherInputs { .. } => Exit::Usage,
            Self::Lost { .. } | Self::Panicked { .. } | Self::Failed { .. } | Self::OutOfStep { .. } => {
                Exit::Lost
            }
            Self::Unreachable { exit, .. } => *exit,
            Self::Diverged { .. } => Exit::Failed,
        }
    }
}
