//! Where a run stands, and who is told.

use std::io;

use seedcorn_adapters::Adapter;
use seedcorn_data::Cursor;

use crate::evaluate::Evaluation;

/// The position of a run between two steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Tokens trained so far.
    pub trained_tokens: u64,
    /// Position in the data.
    pub cursor: Cursor,
    /// Lowest held-out loss so far.
    pub best_eval_loss: Option<f64>,
}

impl Progress {
    pub(crate) fn advance(&mut self, trained_tokens: u64, cursor: Cursor) {
        self.step += 1;
        self.trained_tokens += trained_tokens;
        self.cursor = cursor;
    }
}

/// One optimizer step in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRecord {
    /// The step, counted from 1.
    pub step: u64,
    /// Mean token loss before the update.
    pub loss: f64,
    /// Global norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Tokens with a target.
    pub trained_tokens: usize,
    /// All tokens that went through the model.
    pub tokens: usize,
    /// Wall time of the step.
    pub seconds: f64,
}

/// Who hears of a run's steps and evaluations.
pub trait Observer {
    /// An optimizer step was done, which left this adapter.
    fn step(&mut self, record: &StepRecord, adapter: &Adapter) -> io::Result<()>;

    /// The model was evaluated after `step` steps.
    fn evaluation(&mut self, step: u64, evaluation: &Evaluation) -> io::Result<()>;

    /// A state is about to be saved: what was reported so far must not be lost after it.
    fn before_checkpoint(&mut self) -> io::Result<()>;
}

/// Hears and tells nothing: a rank that another one speaks for.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Observer for Silent {
    fn step(&mut self, _: &StepRecord, _: &Adapter) -> io::Result<()> {
        Ok(())
    }

    fn evaluation(&mut self, _: u64, _: &Evaluation) -> io::Result<()> {
        Ok(())
    }

    fn before_checkpoint(&mut self) -> io::Result<()> {
        Ok(())
    }
}
