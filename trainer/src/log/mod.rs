//! What a run tells: `metrics.jsonl`, TensorBoard's event files, progress on stderr, data on stdout. Nothing else
//! prints.

mod metrics;
mod progress;
mod rows;
mod run_log;
pub mod tensorboard;
mod usage;

pub use metrics::{EvalRow, Metrics, SourceRow, StepRow};
pub use progress::{Progress, Verbosity};
pub(crate) use rows::{Eval, Rows, Update};
pub use run_log::RunLog;
pub use usage::{MachineMemory, available_memory_bytes, cpu_seconds, peak_memory_bytes};

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes one line for people to stderr.
pub fn note_line(text: &str) {
    // Nothing is left to tell when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes one line of data to stdout. A reader that has gone away (`| head`) is not an error.
pub fn data_line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Returns a path without `..`, from the working folder where it lies below it: as a user would write it.
pub fn from_here(path: &Path) -> PathBuf {
    let Ok(whole) = fs_err::canonicalize(path) else { return path.to_owned() };
    let here = std::env::current_dir().and_then(fs_err::canonicalize);
    here.ok().and_then(|here| Some(whole.strip_prefix(here).ok()?.to_owned())).unwrap_or(whole)
}
