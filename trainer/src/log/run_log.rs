//! The log of a training run: `metrics.jsonl`, TensorBoard's event files and progress on stderr.

use std::io;
use std::path::Path;

use seedcorn_adapters::Adapter;
use seedcorn_kernels::device::reserved_bytes;

use super::tensorboard::{self, EventFile};
use super::{EvalRow, Metrics, Progress, SourceRow, StepRow, Verbosity, cpu_seconds, peak_memory_bytes};
use crate::evaluate::{Evaluation, SourceLoss};
use crate::evidence::EARLY_STEPS;
use crate::progress::{self, Observer, StepRecord};

/// Writes and shows what the loop reports.
#[derive(Debug)]
pub struct RunLog {
    metrics: Metrics,
    events: Option<EventFile>,
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
            events: None,
            shown: Progress::new(steps, from.step, verbosity),
            trained_tokens: from.trained_tokens,
        })
    }

    /// Also writes event files for TensorBoard, in their folder in `output`, for a run that stands after `step`.
    pub fn tensorboard(&mut self, output: &Path, step: u64) -> io::Result<()> {
        self.events = Some(EventFile::open(&output.join(tensorboard::FOLDER), step)?);
        Ok(())
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
            seconds,
            cpu_seconds: cpu_seconds(),
            peak_memory_bytes: peak_memory_bytes(),
            device_memory_bytes: adapter.away().and_then(|device| reserved_bytes(&device)),
            adapter_sha256: (step <= EARLY_STEPS).then(|| adapter.digest()),
        };
        self.metrics.step(&row)?;
        self.events.as_mut().map_or(Ok(()), |events| events.step(&row))?;
        self.shown.step(&row);
        Ok(())
    }

    fn evaluation(&mut self, step: u64, evaluation: &Evaluation) -> io::Result<()> {
        let mut row = EvalRow::new(step, evaluation.loss(), evaluation.tokens());
        if evaluation.sources.len() > 1 {
            let sources = evaluation.sources.iter();
            let part =
                |one: &SourceLoss| SourceRow { name: one.name.clone(), loss: one.loss(), tokens: one.tokens };
            row.eval_sources = sources.map(part).collect();
        }
        self.metrics.eval(&row)?;
        self.events.as_mut().map_or(Ok(()), |events| events.eval(&row))?;
        self.shown.eval(&row);
        Ok(())
    }

    fn before_checkpoint(&mut self) -> io::Result<()> {
        self.events.as_ref().map_or(Ok(()), EventFile::sync)?;
        self.metrics.sync()
    }
}
