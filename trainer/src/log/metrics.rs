//! `metrics.jsonl`: one JSON object a step and one an evaluation, in the order they happened.

use crate::checkpoint::atomic;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::Path;

/// What is written after each optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRow {
    /// Optimizer step, from 1.
    pub step: u64,
    /// Mean loss of the step's trained tokens, in nats.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Tokens trained since step 1.
    pub trained_tokens: u64,
    /// Tokens of all sequences of this step, over its seconds.
    pub tokens_per_second: f64,
    /// Wall time of the step.
    pub seconds: f64,
    /// Processor time of the process until the step was done, all threads; the difference of two rows is that
    /// of the steps between.
    pub cpu_seconds: Option<f64>,
    /// Peak resident memory of the process.
    pub peak_memory_bytes: Option<u64>,
    /// Memory that the process has reserved on the run's device after the step: none for the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_memory_bytes: Option<u64>,
    /// Digest of the adapter after the step, for the first steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_sha256: Option<String>,
}

/// What is written after each evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    /// Optimizer steps done; 0 before the first.
    pub step: u64,
    /// Mean loss of the held-out targets, in nats.
    pub eval_loss: f64,
    /// `exp(eval_loss)`.
    pub eval_perplexity: f64,
    /// Held-out targets.
    pub eval_tokens: u64,
    /// Each source, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eval_sources: Vec<SourceRow>,
}

/// The part of one source in an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceRow {
    /// Name of the source.
    pub name: String,
    /// Mean loss of its targets, in nats.
    pub loss: f64,
    /// Its targets.
    pub tokens: u64,
}

impl EvalRow {
    /// Makes the row of an evaluation.
    pub fn new(step: u64, eval_loss: f64, eval_tokens: u64) -> EvalRow {
        EvalRow { step, eval_loss, eval_perplexity: eval_loss.exp(), eval_tokens, eval_sources: Vec::new() }
    }
}

/// The open file. Each row is one write, so that a killed process leaves at most one unfinished line.
#[derive(Debug)]
pub struct Metrics {
    file: fs_err::File,
}

impl Metrics {
    /// Opens the file of a run that continues after `step` (0 for a new run, which keeps no row). Rows of later
    /// steps and an unfinished last line, left by a run that was killed, are dropped; the file is replaced as a
    /// whole.
    pub fn open(path: &Path, step: u64) -> io::Result<Metrics> {
        if path.exists() {
            let text = fs_err::read(path)?;
            let kept = rows_until(&text, step);
            if kept.len() != text.len() {
                atomic::write_file(path, &kept)?;
            }
        }
        Ok(Metrics { file: fs_err::OpenOptions::new().create(true).append(true).open(path)? })
    }

    /// Appends the row of a step.
    pub fn step(&mut self, row: &StepRow) -> io::Result<()> {
        self.append(row)
    }

    /// Appends the row of an evaluation.
    pub fn eval(&mut self, row: &EvalRow) -> io::Result<()> {
        self.append(row)
    }

    /// Fsyncs the rows. Called before each checkpoint, so that no row of a saved step is lost with power.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn append(&mut self, row: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(row).map_err(io::Error::other)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

fn rows_until(text: &[u8], step: u64) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Row {
        step: u64,
    }
    let whole = |line: &&[u8]| line.ends_with(b"\n");
    let early =
        |line: &&[u8]| serde_json::from_slice::<Row>(line).is_ok_and(|row| row.step <= step && step > 0);
    text.split_inclusive(|byte| *byte == b'\n').filter(whole).filter(early).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: u64) -> StepRow {
        StepRow {
            step,
            loss: 1.5,
            grad_norm: 0.25,
            lr: 1e-3,
            trained_tokens: 10 * step,
            tokens_per_second: 99.5,
            seconds: 0.5,
            cpu_seconds: Some(2.5),
            peak_memory_bytes: Some(4096),
            device_memory_bytes: None,
            adapter_sha256: None,
        }
    }

    #[test]
    fn rows_are_objects_with_the_promised_keys() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).expect("opened");
        metrics.eval(&EvalRow::new(0, 0.0, 7)).expect("written");
        metrics.step(&row(1)).expect("written");
        metrics.sync().expect("synced");
        assert_eq!(
            fs_err::read_to_string(&path).expect("there"),
            "{\"step\":0,\"eval_loss\":0.0,\"eval_perplexity\":1.0,\"eval_tokens\":7}\n\
             {\"step\":1,\"loss\":1.5,\"grad_norm\":0.25,\"lr\":0.001,\"trained_tokens\":10,\
             \"tokens_per_second\":99.5,\"seconds\":0.5,\"cpu_seconds\":2.5,\"peak_memory_bytes\":4096}\n"
        );
    }

    #[test]
    fn resuming_drops_what_is_after_the_step() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).expect("opened");
        for step in 1..=3 {
            metrics.step(&row(step)).expect("written");
        }
        metrics.eval(&EvalRow::new(2, 1.0, 1)).expect("written");
        let expected = {
            let text = fs_err::read_to_string(&path).expect("there");
            text.lines()
                .filter(|line| !line.contains("\"step\":3"))
                .fold(String::new(), |all, line| all + line + "\n")
        };
        // A kill in the middle of a line.
        fs_err::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"{\"step\":2,\"lo"))
            .expect("written");
        let mut metrics = Metrics::open(&path, 2).expect("opened");
        assert_eq!(fs_err::read_to_string(&path).expect("there"), expected);
        metrics.step(&row(3)).expect("written");
        assert_eq!(fs_err::read_to_string(&path).expect("there").lines().count(), 4);
        // A run without a checkpoint starts again, evaluation before step 1 and all.
        metrics.eval(&EvalRow::new(0, 1.0, 1)).expect("written");
        Metrics::open(&path, 0).expect("opened");
        assert_eq!(fs_err::read_to_string(&path).expect("there"), "");
    }
}
