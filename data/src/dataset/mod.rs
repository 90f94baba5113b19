//! Sources of records, tokenized: what training and evaluation draw from.

mod inspect;
mod load;
mod render;
mod statistics;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use inspect::TokenView;
pub use statistics::Statistics;

use crate::batch::{MicroBatch, Sample};
use crate::format::Format;
use crate::mask::TrainOn;
use crate::order::Share;

/// A file of records and how to read it.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSpec {
    /// The file.
    pub path: PathBuf,
    /// What the file is called where it comes from, which may be a cache: its ending says how it is read.
    pub file_name: String,
    /// Name in messages and statistics.
    pub name: String,
    /// What the fields mean.
    pub format: Format,
    /// The format's names of fields, to the names that the records have for them; others keep theirs.
    pub fields: BTreeMap<String, String>,
    /// How often an epoch sees each sample: 1 once, 0.5 half of them, 2 twice. Not used in evaluation.
    pub weight: f64,
    /// What of each sample is trained.
    pub train_on: TrainOn,
}

/// What becomes of a sample longer than `max_length`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLong {
    /// Its first `max_length` tokens are kept.
    #[default]
    Truncate,
    /// It is left out.
    Drop,
    /// It becomes several, each of `max_length` tokens but the last.
    Split,
}

/// Records of each training source that are held out for evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// None.
    #[default]
    None,
    /// That many of each source.
    Count(u64),
    /// That part of each source, at least one record when above zero.
    Fraction(f64),
}

/// Settings of [`Dataset::load`].
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// Tokens of a sample at most.
    pub max_length: usize,
    /// What becomes of longer ones.
    pub on_long: OnLong,
    /// Seed of the split.
    pub seed: u64,
    /// Held-out records of the training sources.
    pub split: Split,
    /// Files that are evaluated only.
    pub eval: Vec<SourceSpec>,
    /// Bound of the ids of format `tokens`, the tokenizer's size when `None`.
    pub vocab_size: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            max_length: 1024,
            on_long: OnLong::default(),
            seed: 0,
            split: Split::None,
            eval: Vec::new(),
            vocab_size: None,
        }
    }
}

/// Tokenized training and evaluation samples.
#[derive(Debug)]
pub struct Dataset {
    samples: Vec<Sample>,
    shares: Vec<Share>,
    statistics: Vec<Statistics>,
    eval: Vec<EvalSource>,
}

/// Samples of one evaluation source, in file order.
#[derive(Debug)]
pub struct EvalSource {
    /// Name in reports.
    pub name: String,
    /// The samples.
    pub samples: Vec<Sample>,
    /// What was counted while loading.
    pub statistics: Statistics,
}

impl EvalSource {
    /// Gives the samples in file order, `micro_batch` (at least one) at a time.
    pub fn batches(&self, micro_batch: usize) -> impl Iterator<Item = MicroBatch> + '_ {
        self.samples.chunks(micro_batch.max(1)).enumerate().map(|(index, samples)| {
            let samples: Vec<&Sample> = samples.iter().collect();
            MicroBatch::from_samples(index as u64, &samples)
        })
    }

    /// Number of trained tokens, by which a summed loss is divided.
    pub fn target_tokens(&self) -> u64 {
        self.samples.iter().map(|sample| sample.target_tokens() as u64).sum()
    }
}

impl Dataset {
    /// Training samples: source after source, in file order.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Counts of each training source, in the order given; held-out records are not in them.
    pub fn statistics(&self) -> &[Statistics] {
        &self.statistics
    }

    /// Evaluation sources: the held-out part of each training source, then the evaluation files.
    pub fn eval(&self) -> &[EvalSource] {
        &self.eval
    }

    pub(crate) fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// SHA-256 over ids and labels of all training and evaluation samples, for a lock file.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let eval = self.eval.iter().map(|source| source.samples.as_slice());
        for samples in std::iter::once(self.samples.as_slice()).chain(eval) {
            hash.update((samples.len() as u64).to_le_bytes());
            for sample in samples {
                hash.update((sample.tokens() as u64).to_le_bytes());
                sample.input_ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
                sample.labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
            }
        }
        hex(&hash.finalize())
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}
