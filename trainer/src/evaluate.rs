//! Held-out loss: the mean over trained tokens, per source and over all.

use seedcorn_adapters::Adapter;
use seedcorn_data::{EvalSource, MicroBatch};

use crate::model::{Input, Model, Pass};
use crate::parallel::{ParallelError, Ranks};

/// Loss of one evaluation source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceLoss {
    /// Name of the source.
    pub name: String,
    /// Sum of token losses.
    pub loss_sum: f64,
    /// Trained tokens.
    pub tokens: u64,
}

/// Loss over all evaluation sources.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Each source.
    pub sources: Vec<SourceLoss>,
}

impl SourceLoss {
    /// Returns the mean token loss.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.tokens as f64
    }
}

impl Evaluation {
    /// Returns the number of trained tokens of all sources.
    pub fn tokens(&self) -> u64 {
        self.sources.iter().map(|source| source.tokens).sum()
    }

    /// Returns the mean token loss over all sources.
    pub fn loss(&self) -> f64 {
        self.sources.iter().map(|source| source.loss_sum).sum::<f64>() / self.tokens() as f64
    }

    /// Returns `e^loss`.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }
}

/// How held-out data is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct EvalShape {
    /// Samples that go through the model at once.
    pub micro_batch: usize,
    /// Takes only so many samples of each source.
    pub max_samples: Option<usize>,
}

/// Evaluates the model on every source, after `step` steps. Sources without a trained token are left out.
///
/// # Numerics
/// Each rank computes its share of the batches; their losses are added in order, so that every rank gets the same sum
/// as one alone.
///
/// # Errors
/// [`ParallelError`]
pub fn evaluate(
    ranks: &Ranks,
    step: u64,
    model: Model,
    adapter: Option<&Adapter>,
    sources: &[EvalSource],
    how: EvalShape,
) -> Result<Evaluation, ParallelError> {
    let limit = how.max_samples.map_or(usize::MAX, |samples| samples.div_ceil(how.micro_batch.max(1)));
    let trained = |source: &EvalSource| -> Vec<MicroBatch> {
        let batches = source.batches(how.micro_batch).take(limit);
        batches.filter(|batch| batch.target_tokens() > 0).collect()
    };
    let batches: Vec<Vec<MicroBatch>> = sources.iter().map(trained).collect();
    let all: Vec<&MicroBatch> = batches.iter().flatten().collect();
    let (share, model) = (&all[ranks.share(all.len())], model.at(step));
    let mut own = Vec::with_capacity(share.len());
    model.each(share, all.len(), Pass::Forward, |batch| {
        own.push(model.loss_sum(&Input::from(*batch), adapter)?);
        Ok(())
    })?;
    let losses = ranks.gather_numbers("evaluation", step, all.len(), &own)?;
    let mut rest = losses.as_slice();
    let sources = sources.iter().zip(&batches).map(|(source, batches)| {
        let (losses, after) = rest.split_at(batches.len());
        rest = after;
        SourceLoss {
            name: source.name.clone(),
            loss_sum: losses.iter().sum(),
            tokens: batches.iter().map(|batch| batch.target_tokens() as u64).sum(),
        }
    });
    Ok(Evaluation { sources: sources.filter(|source| source.tokens > 0).collect() })
}
