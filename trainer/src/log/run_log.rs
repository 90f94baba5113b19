//! The log of a training run: `metrics.jsonl` and progress on stderr.

use std::io;
use std::path::Path;

use seedcorn_adapters::Adapter;

use super::{EvalRow, Metrics, Progress, StepRow, Verbosity, cpu_seconds, peak_memory_bytes};
use crate::evaluate::Evaluation;
use crate::evidence::EARLY_STEPS;
use crate::progress::{self, Observer, StepRecord};

/// Writes and shows what the loop reports.
#[derive(Debug)]
pub struct RunLog {
    metrics: Metrics,
    shown: Progress,
    trained_tokens: u64,
}

impl RunLog {
    /// Opens the log of the run in `output` that stands at `from` and ends after `steps`.
    pub fn open(
        output: &Path,
        from: &progress::Progress,
        steps: u64,
        verbosity: Verbosity,
    ) -> io::Result<Self> {
        Ok(Self {
            metrics: Metrics::open(&output.join("metrics.jsonl"), from.step)?,
            shown: Progress::new(steps, from.step, verbosity),
            trained_tokens: from.trained_tokens,
        })
    }

    /// Returns where lines are shown.
    pub fn shown(&self) -> &Progress {
        &self.shown
    }
}

impl Observer for RunLog {
    fn step(&mut self, record: &StepRecord, adapter: &Adapter) -> io::Result<()> {
        let StepRecord { step, loss, grad_norm, lr, trained_tokens, tokens, seconds } = *record;
        self.trained_tokens += trained_tokens as u64;
        let row = StepRow {
            step,
            loss,
            grad_norm,
            lr,
            trained_tokens: self.trained_tokens,
            tokens_per_second: tokens as f64 / seconds,
            cpu_seconds: cpu_seconds(),
            peak_memory_bytes: peak_memory_bytes(),
            adapter_sha256: (step <= EARLY_STEPS).then(|| adapter.digest()),
        };
        self.metrics.step(&row)?;
        self.shown.step(&row);
        Ok(())
    }

    fn evaluation(&mut self, step: u64, evaluation: &Evaluation) -> io::Result<()> {
        let row = EvalRow::new(step, evaluation.loss(), evaluation.tokens());
        self.metrics.eval(&row)?;
        self.shown.eval(&row);
        Ok(())
    }

    fn before_checkpoint(&mut self) -> io::Result<()> {
        self.metrics.sync()
    }
}
