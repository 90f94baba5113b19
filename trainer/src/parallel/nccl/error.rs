//! What can go wrong on the way to NCCL, and with it.

use crate::error::Exit;
use crate::parallel::rendezvous::MeetingError;

/// A failure of NCCL, of the driver below it, or of the way there.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum NcclError {
    #[error("NCCL cannot be loaded: {}", tried.join("; "))]
    NoLibrary { tried: Vec<String> },
    #[error("the NCCL at hand (`{path}`) has no `{name}`")]
    NoFunction { path: String, name: &'static str },
    #[error("this machine has no CUDA driver")]
    NoDriver,
    #[error("the CUDA driver fails at {what}: {said}")]
    Driver { what: &'static str, said: String },
    #[error("this rank wants GPU {wanted} of its machine, which has {count}")]
    NoGpu { wanted: usize, count: usize },
    #[error("`{what}` failed: {said}")]
    Call { what: &'static str, said: String },
    #[error("`{what}` did not come to an end within {seconds} s")]
    Late { what: &'static str, seconds: u64 },
    #[error(transparent)]
    Meeting(#[from] MeetingError),
}

impl NcclError {
    /// Returns what to do next.
    pub fn hint(&self) -> Option<String> {
        const CPU: &str = "ranks without a GPU are started by `mpirun` in a build with `--features mpi`";
        match self {
            Self::NoLibrary { .. } => Some(
                "install NCCL 2.18 or newer, or put the path of its library into `SEEDCORN_NCCL` (the Python \
                 package `nvidia-nccl-cu12` holds one)"
                    .to_owned(),
            ),
            Self::NoFunction { .. } => Some("NCCL 2.18 or newer is needed".to_owned()),
            Self::NoDriver => Some(format!("each rank needs an NVIDIA GPU; {CPU}")),
            Self::NoGpu { .. } => Some(format!("start as many ranks on a machine as it has GPUs; {CPU}")),
            Self::Driver { .. } | Self::Call { .. } | Self::Late { .. } => {
                Some("`NCCL_DEBUG=INFO` makes NCCL say more".to_owned())
            }
            Self::Meeting(error) => error.hint(),
        }
    }

    /// Returns how the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoLibrary { .. } | Self::NoFunction { .. } | Self::NoDriver | Self::NoGpu { .. } => {
                Exit::Usage
            }
            Self::Driver { .. } | Self::Call { .. } | Self::Late { .. } => Exit::Lost,
            Self::Meeting(error) => error.exit(),
        }
    }
}
