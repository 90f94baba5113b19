//! What can go wrong with ranks that this process has started.

use std::io;

use crate::error::{Exit, Explain};

const SIGKILL: i32 = 9;

/// Ranks that could not be started, or did not end well.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum StartError {
    #[error("`mpirun` is not found")]
    NoMpirun,
    #[error("ranks are not started on this system")]
    NoUnix,
    #[error("could not start `{program}`")]
    Program {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("could not listen for signals")]
    Signals(#[source] io::Error),
    #[error("no port of the loopback is free")]
    Port(#[source] io::Error),
    #[error("{} was ended by {}", shown_rank(*rank), shown_signal(*signal))]
    Killed { rank: Option<usize>, signal: i32 },
    #[error("{} ended with exit code {code}", shown_rank(*rank))]
    Ended { rank: Option<usize>, code: i32 },
    #[error("all ranks were ended at once by a second signal")]
    Stopped,
    /// A rank failed, and has said why.
    #[error("a rank has failed")]
    Failed(Exit),
}

impl Explain for StartError {
    fn hint(&self) -> Option<String> {
        const RESUME: &str = "all ranks have ended; continue with `--resume`, on as many ranks as you like";
        match self {
            Self::NoMpirun => Some(
                "install Open MPI (`scripts/setup/mpi.sh` on Debian), or put `mpirun` on the `PATH`".into(),
            ),
            Self::Killed { signal: SIGKILL, .. } => Some(format!(
                "{RESUME}; if nobody killed it, the machine had no memory left (`seedcorn plan`)"
            )),
            Self::Killed { .. } | Self::Stopped => Some(RESUME.into()),
            Self::NoUnix => Some("start them with the launcher of your MPI".into()),
            Self::Program { .. }
            | Self::Signals(_)
            | Self::Port(_)
            | Self::Ended { .. }
            | Self::Failed(_) => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::NoMpirun | Self::NoUnix => Exit::Usage,
            Self::Killed { .. } => Exit::Lost,
            Self::Failed(exit) => *exit,
            Self::Program { .. } | Self::Signals(_) | Self::Port(_) | Self::Ended { .. } | Self::Stopped => {
                Exit::Failed
            }
        }
    }
}

fn shown_rank(rank: Option<usize>) -> String {
    rank.map_or_else(|| "a rank".to_owned(), |rank| format!("rank {rank}"))
}

fn shown_signal(signal: i32) -> String {
    let name = signal_hook::low_level::signal_name(signal);
    name.map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// Reads an exit code as ours; a rank says itself what is behind one of those.
#[cfg(unix)]
pub(super) fn told(code: i32) -> Option<Exit> {
    [Exit::Failed, Exit::Usage, Exit::Lost].into_iter().find(|exit| i32::from(exit.code()) == code)
}
