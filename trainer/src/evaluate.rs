//! Held-out loss: the mean over trained tokens, per source and over all.

use seedcorn_adapters::Adapter;
use seedcorn_data::{EvalSource, MicroBatch};

use crate::model::{Decoder, Input};

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

/// Evaluates the model on every source, `micro_batch` samples at a time; `max_samples` bounds each source.
///
/// Sources without a trained token are left out.
pub fn evaluate(
    model: &Decoder,
    adapter: Option<&Adapter>,
    sources: &[EvalSource],
    micro_batch: usize,
    max_samples: Option<usize>,
) -> Evaluation {
    let limit = max_samples.map_or(usize::MAX, |samples| samples.div_ceil(micro_batch.max(1)));
    let sources = sources.iter().map(|source| {
        let batches: Vec<MicroBatch> = source.batches(micro_batch).take(limit).collect();
        let losses = batches.iter().filter(|batch| batch.target_tokens() > 0);
        SourceLoss {
            name: source.name.clone(),
            loss_sum: losses.map(|batch| model.loss_sum(&Input::from(batch), adapter)).sum(),
            tokens: batches.iter().map(|batch| batch.target_tokens() as u64).sum(),
        }
    });
    Evaluation { sources: sources.filter(|source| source.tokens > 0).collect() }
}
