//! TensorBoard's event files: the scalars of `metrics.jsonl` where TensorBoard looks for them.
//!
//! Each process of a run writes a file of its own. One that continues after a step first takes the later steps
//! out of the files before it, and begins its own with a mark at which a TensorBoard that is already open drops
//! them too: no step is shown twice, and none goes back.

mod event;
mod record;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use self::event::{Event, FILE_VERSION, Scalar, SessionLog, SessionStatus, Summary, What};
use super::{EvalRow, StepRow};
use crate::checkpoint::atomic;

/// Folder of the event files in a run's folder.
pub const FOLDER: &str = "tensorboard";
/// What TensorBoard knows an event file by.
const PREFIX: &str = "events.out.tfevents.";
const SUFFIX: &str = ".seedcorn";

/// The open file of this process. Each record is one write, so that a killed process leaves at most one that is
/// cut off, where readers stop.
#[derive(Debug)]
pub struct EventFile {
    file: fs_err::File,
}

impl EventFile {
    /// Starts a file in `folder` for a run that continues after `step` (0 for a new run). Later steps, left by a
    /// run that was killed, are taken out of the files that are there.
    pub fn open(folder: &Path, step: u64) -> io::Result<EventFile> {
        fs_err::create_dir_all(folder)?;
        let mut newest = 0;
        for (path, seconds) in files(folder)? {
            newest = newest.max(seconds);
            truncate(&path, step)?;
        }
        // Readers go through files by their names, so a name must come after those before.
        let seconds = (wall_time() as u64).max(newest + 1);
        let path = folder.join(format!("{PREFIX}{seconds:010}{SUFFIX}"));
        let mut events =
            EventFile { file: fs_err::OpenOptions::new().create_new(true).append(true).open(path)? };
        events.write(0, What::FileVersion(FILE_VERSION.to_owned()))?;
        if newest > 0 {
            let status = SessionStatus::Start.into();
            events.write(step + 1, What::SessionLog(SessionLog { status }))?;
        }
        Ok(events)
    }

    /// Appends the values of a step.
    pub fn step(&mut self, row: &StepRow) -> io::Result<()> {
        let memory = row.peak_memory_bytes.map(|bytes| ("memory/peak_bytes", bytes as f64));
        let device = row.device_memory_bytes.map(|bytes| ("memory/device_bytes", bytes as f64));
        let values = [
            ("train/loss", row.loss),
            ("train/grad_norm", row.grad_norm),
            ("train/lr", row.lr),
            ("train/tokens_per_second", row.tokens_per_second),
        ];
        self.scalars(row.step, values.into_iter().chain(memory).chain(device))
    }

    /// Appends an evaluation.
    pub fn eval(&mut self, row: &EvalRow) -> io::Result<()> {
        let values = [("eval/loss", row.eval_loss), ("eval/perplexity", row.eval_perplexity)];
        self.scalars(row.step, values.into_iter())
    }

    /// Fsyncs the records.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn scalars(&mut self, step: u64, values: impl Iterator<Item = (&'static str, f64)>) -> io::Result<()> {
        let scalar =
            |(tag, value): (&str, f64)| Scalar { tag: tag.to_owned(), simple_value: Some(value as f32) };
        self.write(step, What::Summary(Summary { value: values.map(scalar).collect() }))
    }

    fn write(&mut self, step: u64, what: What) -> io::Result<()> {
        let step = i64::try_from(step).map_err(io::Error::other)?;
        let event = Event { wall_time: wall_time(), step, what: Some(what) };
        self.file.write_all(&record::frame(&event.encode_to_vec()))
    }
}

/// Lists our files with the seconds in their names, in no order.
fn files(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let seconds =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        found.extend(seconds.map(|seconds| (entry.path(), seconds)));
    }
    Ok(found)
}

/// Takes the steps after `step` out of a file, and what cannot be read; the file is replaced as a whole.
fn truncate(path: &Path, step: u64) -> io::Result<()> {
    let bytes = fs_err::read(path)?;
    let early = |content: &&[u8]| {
        // Step 0 is before the first: a run that starts again measures it again.
        let of = |event: Event| match event.what {
            Some(What::Summary(_)) => step > 0 && u64::try_from(event.step).is_ok_and(|at| at <= step),
            _ => true,
        };
        Event::decode(*content).is_ok_and(of)
    };
    let kept: Vec<u8> = record::contents(&bytes).filter(early).flat_map(record::frame).collect();
    if kept == bytes { Ok(()) } else { atomic::write_file(path, &kept) }
}

/// Returns the seconds since 1970; 0 on a machine whose clock stands before.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests;
