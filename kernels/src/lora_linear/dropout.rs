//! Dropout whose mask is a function of a key and the element's place, so it is never stored.

/// Dropout of one adapter's input in one micro-batch.
///
/// The key stands for (seed, micro-batch, module): the mask depends on nothing else, so it is the same in
/// the forward pass, in a recomputation, and on any rank, also one that has some of the columns only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability that an element is zeroed, in `[0, 1)`.
    pub probability: f32,
    /// Names the mask.
    pub key: u64,
    /// Where the input's columns stand, when it is but a part of the module's input.
    pub columns: Option<Columns>,
}

/// Neighbouring columns of a wider matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The first of them.
    pub first: usize,
    /// How many they are.
    pub count: usize,
    /// Columns of the wider matrix.
    pub of: usize,
}

impl Dropout {
    /// Returns what element `index` is multiplied by: `0` or `1 / (1 - probability)`. The same column of the same token has
    /// the same factor in a part and in the whole.
    #[inline]
    pub fn factor(self, index: u64) -> f32 {
        let index = self.columns.map_or(index, |columns| {
            let (row, column) = (index / columns.count as u64, index % columns.count as u64);
            row * columns.of as u64 + columns.first as u64 + column
        });
        // 24 bits of a finalised 64-bit counter hash (SplitMix64, Steele et al. 2014) as a uniform in [0, 1).
        let mut z = self.key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let uniform = (z >> 40) as f32 / 16_777_216.0;
        if uniform < self.probability { 0.0 } else { 1.0 / (1.0 - self.probability) }
    }

    /// Returns probability and key as the kernels of devices take them; no dropout is a mask that keeps everything.
    ///
    /// # Panics
    /// Where the input has some of the columns only: ranks on a device have whole inputs.
    #[cfg(feature = "tensor-cores")]
    pub(crate) fn of_whole_inputs(dropout: Option<Self>) -> (f32, u64) {
        dropout.map_or((0.0, 0), |dropout| {
            assert!(dropout.columns.is_none(), "a device has whole inputs, not columns of them");
            (dropout.probability, dropout.key)
        })
    }

    /// Multiplies a `[tokens, width]` matrix by the mask, element by element.
    pub fn apply(self, values: &mut [f32]) {
        use rayon::prelude::*;
        const CHUNK: usize = 1 << 14;
        values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
            for (i, value) in values.iter_mut().enumerate() {
                *value *= self.factor((chunk * CHUNK + i) as u64);
            }
        });
    }
}
