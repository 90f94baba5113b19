//! Samples, and the micro-batches made of them.
//!
//! There is no padding: a micro-batch is one row of tokens, and its segments say where samples end.

/// Label of a token that is not trained.
pub const IGNORE: i32 = -100;

/// A tokenized sample.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// `[tokens]` ids.
    pub input_ids: Vec<u32>,
    /// `[tokens]`, not shifted: `labels[i]` is `input_ids[i]` or [`IGNORE`].
    pub labels: Vec<i32>,
    /// Number of the source.
    pub source: u32,
    /// Number of the record in its source, from zero.
    pub index: u64,
}

impl Sample {
    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Number of tokens that are predicted and trained; the first token is never predicted.
    pub fn target_tokens(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&label| label != IGNORE).count()
    }
}

/// Samples or packs that go through the model at once.
///
/// # Shapes
/// - `input_ids`, `targets`, `positions`: `[tokens]`
/// - `segments`: `[segments + 1]`, cumulative ends with a leading 0
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroBatch {
    /// Number of the micro-batch in the run.
    pub index: u64,
    /// Token ids.
    pub input_ids: Vec<u32>,
    /// The next token's label: `labels[i + 1]` within a segment, [`IGNORE`] at each segment's last token.
    pub targets: Vec<i32>,
    /// Position in the segment, from zero.
    pub positions: Vec<u32>,
    /// Borders of the segments; attention never crosses them.
    pub segments: Vec<u32>,
}

impl MicroBatch {
    /// Lays samples one after another, each a segment of its own.
    pub fn from_samples(index: u64, samples: &[&Sample]) -> Self {
        let tokens = samples.iter().map(|sample| sample.tokens()).sum();
        let mut batch = Self {
            index,
            input_ids: Vec::with_capacity(tokens),
            targets: Vec::with_capacity(tokens),
            positions: Vec::with_capacity(tokens),
            segments: Vec::with_capacity(samples.len() + 1),
        };
        batch.segments.push(0);
        for sample in samples.iter().filter(|sample| sample.tokens() > 0) {
            batch.input_ids.extend(&sample.input_ids);
            batch.targets.extend(sample.labels.iter().skip(1));
            batch.targets.push(IGNORE);
            batch.positions.extend(0..sample.tokens() as u32);
            batch.segments.push(batch.input_ids.len() as u32);
        }
        batch
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Number of trained tokens.
    pub fn target_tokens(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORE).count()
    }
}

#[cfg(test)]
mod tests {
    use super::{IGNORE, MicroBatch, Sample};

    #[test]
    fn targets_shift_within_segments_only() {
        let first = Sample { input_ids: vec![5, 6, 7], labels: vec![IGNORE, 6, 7], ..Sample::default() };
        let second = Sample { input_ids: vec![8, 9], labels: vec![8, 9], ..Sample::default() };
        let batch = MicroBatch::from_samples(3, &[&first, &second]);
        assert_eq!(batch.input_ids, [5, 6, 7, 8, 9]);
        assert_eq!(batch.targets, [6, 7, IGNORE, 9, IGNORE]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1]);
        assert_eq!(batch.segments, [0, 3, 5]);
        assert_eq!((batch.index, batch.tokens(), batch.target_tokens()), (3, 5, 3));
        assert_eq!(first.target_tokens() + second.target_tokens(), batch.target_tokens());
    }
}
