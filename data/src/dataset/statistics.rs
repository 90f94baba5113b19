//! What was counted while a source was loaded: nothing is cut or dropped in silence.

use serde::{Deserialize, Serialize};

use crate::batch::Sample;

/// Counts of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Name of the source.
    pub name: String,
    /// Records read.
    pub records: u64,
    /// Samples kept.
    pub samples: u64,
    /// Tokens of the samples kept.
    pub tokens: u64,
    /// Tokens of the samples kept that are trained.
    pub trained_tokens: u64,
    /// Samples cut to `max_length` and kept.
    pub truncated: u64,
    /// Samples longer than `max_length` that became several.
    #[serde(default)]
    pub split: u64,
    /// Samples left out for their length.
    pub dropped_long: u64,
    /// Samples left out because the cut took all they train.
    pub dropped_truncated: u64,
    /// Samples left out because nothing in them is trained.
    pub dropped_untrained: u64,
    /// Samples that began with two BOS tokens, of which one was taken out.
    pub double_bos: u64,
    /// Samples with an assistant turn that does not end with a special token: the model would not learn
    /// to stop there.
    pub missing_eos: u64,
    /// Tokens of the shortest sample kept.
    pub min_length: u64,
    /// Tokens of the median sample kept (the upper of two).
    pub median_length: u64,
    /// Tokens of the longest sample kept.
    pub max_length: u64,
}

impl Statistics {
    /// Fills in what follows from the samples kept.
    pub(super) fn measure(&mut self, samples: &[Sample]) {
        let mut lengths: Vec<u64> = samples.iter().map(|sample| sample.tokens() as u64).collect();
        lengths.sort_unstable();
        self.samples = lengths.len() as u64;
        self.tokens = lengths.iter().sum();
        self.trained_tokens = samples.iter().map(|sample| sample.target_tokens() as u64).sum();
        self.min_length = lengths.first().copied().unwrap_or(0);
        self.median_length = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
        self.max_length = lengths.last().copied().unwrap_or(0);
    }
}
