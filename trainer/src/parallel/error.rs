//! What can go wrong between ranks.

use std::error::Error;

use crate::error::Exit;

/// A run of several ranks that cannot go on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum ParallelError {
    #[error("rank {rank} was lost at `{op}` of step {step}: {how}")]
    Lost { rank: usize, op: &'static str, step: u64, how: String },
    #[error("rank {rank} failed after `{op}` of step {step}")]
    Failed {
        rank: usize,
        op: &'static str,
        step: u64,
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
            Self::Lost { .. } => Some(
                "all ranks have ended; continue with `--resume`, on as many ranks as you like".to_owned(),
            ),
            Self::Failed { .. } => None,
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

    /// Returns how the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Lost { .. } | Self::Failed { .. } | Self::OutOfStep { .. } => Exit::Lost,
            Self::Diverged { .. } => Exit::Failed,
        }
    }
}
