//! Starting the ranks of a run as processes of this machine.
//!
//! ```text
//! mpirun     through Open MPI, which starts them, passes messages, and ends all when one ends badly
//! processes  one by one, each with the variables that torchrun would give it
//! said       what `mpirun` says of a rank that ended badly
//! signals    what this process is told, passed on
//! ```
//!
//! However they are started, a signal to this process reaches them as a rank expects it, and when one of them is gone the
//! others are ended.

mod error;
#[cfg(unix)]
mod mpirun;
#[cfg(unix)]
mod processes;
#[cfg(unix)]
mod said;
#[cfg(unix)]
mod signals;

use std::ffi::OsString;
use std::path::PathBuf;

pub use error::StartError;

/// What ranks are started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// Open MPI's `mpirun`.
    Mpirun,
    /// This process.
    Processes,
}

/// The ranks to start.
#[derive(Clone, Debug)]
pub struct Start {
    /// The program of a rank.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// How many.
    pub ranks: usize,
}

impl Start {
    /// Runs all ranks to their end. Nothing comes back when all ended well.
    ///
    /// # Errors
    /// [`StartError::Failed`] with what a rank ended with once it has said why; any other is for the caller to tell.
    #[cfg(unix)]
    pub fn run(&self, starter: Starter) -> Result<(), StartError> {
        match starter {
            Starter::Mpirun => mpirun::run(self),
            Starter::Processes => processes::run(self),
        }
    }
}
