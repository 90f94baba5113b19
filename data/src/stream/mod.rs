//! The endless stream of optimizer steps.
//!
//! Epochs follow one another without a gap: a step at the end of an epoch takes the rest of its units from
//! the next. Step `k` is a pure function of the seed and the dataset.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::batch::{MicroBatch, Sample};
use crate::cursor::Cursor;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::order::{OrderConfig, epoch_units};

/// Units of a step at most: a step is held in memory.
const MOST_UNITS: usize = 1 << 20;

/// How samples become steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamConfig {
    /// Sequences, or packs, of an optimizer step, over all ranks.
    pub batch_size: usize,
    /// Sequences, or packs, of a micro-batch.
    pub micro_batch: usize,
    /// Several samples share a sequence, kept apart by segments.
    pub packing: bool,
    /// Tokens of a pack.
    pub max_length: usize,
    /// A new order each epoch; file order when false.
    pub shuffle: bool,
    /// Seed of the order.
    pub seed: u64,
}

impl StreamConfig {
    fn order(&self) -> OrderConfig {
        let pack = self.packing.then_some(self.max_length);
        OrderConfig { seed: self.seed, shuffle: self.shuffle, pack }
    }
}

/// Gives the micro-batches of one optimizer step after another.
#[derive(Debug, Clone)]
pub struct Stream {
    dataset: Arc<Dataset>,
    config: StreamConfig,
    cursor: Cursor,
    units: Vec<Vec<usize>>,
    first_epoch_units: u64,
}

impl Stream {
    /// Starts at step zero.
    ///
    /// # Errors
    /// `batch_size` not a multiple of `micro_batch`, one of them zero or above 2^20, a sample longer than a pack, an
    /// epoch without samples.
    pub fn new(dataset: Arc<Dataset>, config: StreamConfig) -> Result<Self> {
        for (name, got) in [("batch_size", config.batch_size), ("micro_batch", config.micro_batch)] {
            if got == 0 {
                return Err(Error::TooSmall { name, got, least: 1 });
            }
            if got > MOST_UNITS {
                return Err(Error::TooLarge { name, got, most: MOST_UNITS });
            }
        }
        let (batch_size, micro_batch) = (config.batch_size, config.micro_batch);
        if batch_size % micro_batch != 0 {
            return Err(Error::NotDivisible { batch_size, micro_batch });
        }
        let longest = dataset.samples().iter().map(Sample::tokens).max().unwrap_or(0);
        if config.packing && longest > config.max_length {
            return Err(Error::SampleTooLong { length: longest, max_length: config.max_length });
        }
        let units = epoch_units(dataset.samples(), dataset.shares(), config.order(), 0);
        if units.is_empty() {
            return Err(Error::EmptyEpoch { epoch: 0 });
        }
        let first_epoch_units = units.len() as u64;
        Ok(Self { dataset, config, cursor: Cursor::default(), units, first_epoch_units })
    }

    /// Gives the micro-batches of the next step. After an error the stream stands where it stood.
    ///
    /// # Errors
    /// A step without a trained token, an epoch without samples.
    pub fn next_step(&mut self) -> Result<Vec<MicroBatch>> {
        let mut next = self.cursor;
        let mut later: Option<Vec<Vec<usize>>> = None;
        let mut batches = Vec::with_capacity(self.config.batch_size / self.config.micro_batch);
        while batches.len() < self.config.batch_size / self.config.micro_batch {
            let mut samples: Vec<&Sample> = Vec::new();
            for _ in 0..self.config.micro_batch {
                if next.unit == later.as_ref().unwrap_or(&self.units).len() as u64 {
                    next.epoch += 1;
                    next.unit = 0;
                    later = Some(self.epoch(next.epoch)?);
                }
                let unit = &later.as_ref().unwrap_or(&self.units)[next.unit as usize];
                samples.extend(unit.iter().map(|&entry| &self.dataset.samples()[entry]));
                next.unit += 1;
            }
            batches.push(MicroBatch::from_samples(next.micro_batch, &samples));
            next.micro_batch += 1;
        }
        if batches.iter().all(|batch| batch.target_tokens() == 0) {
            return Err(Error::StepUntrained { step: self.cursor.step });
        }
        next.step += 1;
        self.cursor = next;
        if let Some(units) = later {
            self.units = units;
        }
        Ok(batches)
    }

    /// Where the stream stands: what a checkpoint keeps.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Goes to a place: what follows is what an uninterrupted stream gives.
    ///
    /// # Errors
    /// A cursor of another batch size, or of other data. The stream then stands where it stood.
    pub fn seek(&mut self, cursor: Cursor) -> Result<()> {
        let per_step = (self.config.batch_size / self.config.micro_batch) as u64;
        if cursor.step.max(cursor.epoch).max(cursor.micro_batch) > i64::MAX as u64 {
            return Err(Error::BadCursor { reason: format!("{cursor:?} is out of range") });
        }
        if cursor.step.checked_mul(per_step) != Some(cursor.micro_batch) {
            let Cursor { step, micro_batch, .. } = cursor;
            return Err(Error::BadCursor {
                reason: format!(
                    "step {step} at {per_step} micro-batches a step, but micro-batch {micro_batch}"
                ),
            });
        }
        let units = self.epoch(cursor.epoch)?;
        if cursor.unit > units.len() as u64 {
            let Cursor { epoch, unit, .. } = cursor;
            return Err(Error::BadCursor {
                reason: format!("unit {unit} of epoch {epoch}, which has {}", units.len()),
            });
        }
        self.units = units;
        self.cursor = cursor;
        Ok(())
    }

    /// Steps that cover the first epoch, the last of them perhaps with units of the second.
    ///
    /// With packing, epochs of sources with broken weights may differ by a few packs.
    pub fn steps_per_epoch(&self) -> u64 {
        self.first_epoch_units.div_ceil(self.config.batch_size as u64)
    }

    /// Units of the first epoch: samples, or packs.
    pub fn units_per_epoch(&self) -> u64 {
        self.first_epoch_units
    }

    /// Samples of each unit of an epoch, in order; what `inspect` shows of packs.
    ///
    /// # Errors
    /// An epoch without samples.
    pub fn epoch(&self, epoch: u64) -> Result<Vec<Vec<usize>>> {
        let units = epoch_units(self.dataset.samples(), self.dataset.shares(), self.config.order(), epoch);
        if units.is_empty() { Err(Error::EmptyEpoch { epoch }) } else { Ok(units) }
    }

    /// SHA-256 of the first epoch's order, borders of units included, for a lock file.
    ///
    /// # Errors
    /// An epoch without samples.
    pub fn order_digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let units =
            if self.cursor.epoch == 0 { Cow::Borrowed(&self.units) } else { Cow::Owned(self.epoch(0)?) };
        for unit in units.iter() {
            hash.update((unit.len() as u64).to_le_bytes());
            for &entry in unit {
                let sample = &self.dataset.samples()[entry];
                hash.update(u64::from(sample.source).to_le_bytes());
                hash.update(sample.index.to_le_bytes());
            }
        }
        Ok(crate::dataset::hex(&hash.finalize()))
    }
}
