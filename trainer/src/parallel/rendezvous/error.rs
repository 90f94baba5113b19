//! What can go wrong while ranks look for each other.

use std::io;

use super::place::PORT;
use crate::error::Exit;

/// A meeting that did not come about.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum MeetingError {
    #[error("`MASTER_ADDR` is not set")]
    NoAddress,
    #[error("`{name}` is `{found}`, which is not a port from 1 to 65535")]
    BadPort { name: &'static str, found: String },
    #[error("rank 0 cannot listen at `{place}`")]
    Listen {
        place: String,
        #[source]
        source: io::Error,
    },
    #[error("rank 0 was not reached at `{place}` within {seconds} s")]
    NotReached {
        place: String,
        seconds: u64,
        #[source]
        source: io::Error,
    },
    #[error("{} did not come to `{place}` within {seconds} s", shown(missing))]
    Missing { missing: Vec<usize>, place: String, seconds: u64 },
    #[error("a rank says that it is rank {rank} of {ranks}, but rank 0 is one of {expected}")]
    OtherWorld { rank: u32, ranks: u32, expected: usize },
    #[error("rank {rank} is version {found} of this program, rank 0 is version {expected}")]
    OtherVersion { rank: u32, found: String, expected: String },
    #[error("two processes say that they are rank {rank}")]
    Twice { rank: u32 },
    #[error("a rank of another run was here")]
    OtherRun,
    #[error("rank 0 has refused this rank: {reason}")]
    Refused { reason: String },
}

impl MeetingError {
    /// Returns what to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoAddress => "set it to the name or address of the machine of rank 0".to_owned(),
            Self::BadPort { name, .. } => format!("mend `{name}`"),
            Self::Listen { .. } => format!(
                "if another program has the port, set `{PORT}` to a free one, the same for all ranks; \
                 `MASTER_ADDR` must be this machine"
            ),
            Self::NotReached { .. } => format!(
                "look whether rank 0 has ended, whether `MASTER_ADDR` is its machine, and whether the port is open \
                 (`{PORT}` chooses another)"
            ),
            Self::Missing { .. } => "look at what these ranks say".to_owned(),
            Self::OtherWorld { .. } | Self::Twice { .. } => {
                "start all ranks with one launcher, and let no run before it be left".to_owned()
            }
            Self::OtherVersion { .. } => "put the same program on every machine".to_owned(),
            Self::OtherRun => "let no run before it be left".to_owned(),
            Self::Refused { .. } => return None,
        })
    }

    /// Returns how the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoAddress
            | Self::BadPort { .. }
            | Self::Listen { .. }
            | Self::OtherWorld { .. }
            | Self::OtherVersion { .. }
            | Self::Twice { .. } => Exit::Usage,
            Self::NotReached { .. } | Self::Missing { .. } | Self::OtherRun | Self::Refused { .. } => {
                Exit::Lost
            }
        }
    }
}

fn shown(ranks: &[usize]) -> String {
    const MOST: usize = 8;
    let numbers: Vec<String> = ranks.iter().take(MOST).map(ToString::to_string).collect();
    let more = if ranks.len() > MOST { format!(" and {} more", ranks.len() - MOST) } else { String::new() };
    let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
    format!("{noun} {}{more}", numbers.join(", "))
}
