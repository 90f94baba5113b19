//! How ranks are laid out.

use std::ops::Range;

/// Ranks in a grid. A rank is one device: here the threads that one rank computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Ranks that share out the micro-batches of a step.
    pub data: usize,
}

impl Mesh {
    /// Returns the number of ranks.
    pub fn ranks(self) -> usize {
        self.data
    }

    /// Returns which of `items` a rank computes. Shares are contiguous and differ by one item at most; with fewer
    /// items than ranks some are empty.
    pub fn share(self, rank: usize, items: usize) -> Range<usize> {
        rank * items / self.data..(rank + 1) * items / self.data
    }
}

#[cfg(test)]
mod tests {
    use super::Mesh;

    #[test]
    fn shares_cover_everything_once() {
        for data in 1..9 {
            for items in 0..40 {
                let shares: Vec<_> = (0..data).map(|rank| Mesh { data }.share(rank, items)).collect();
                assert_eq!((shares[0].start, shares[data - 1].end), (0, items));
                assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
                let sizes = || shares.iter().map(ExactSizeIterator::len);
                assert!(sizes().max().expect("a rank") <= sizes().min().expect("a rank") + 1);
            }
        }
    }
}
