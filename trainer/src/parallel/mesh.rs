//! How ranks are laid out.

use std::ops::Range;

/// Ranks in a grid. A rank is one device: here the threads that one rank computes with.
///
/// Ranks that hold the slices of one model have neighbouring numbers: `rank = data_index * tensor + tensor_index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Groups of ranks that share out the micro-batches of a step.
    pub data: usize,
    /// Ranks that share out every layer of the model; together they compute a micro-batch.
    pub tensor: usize,
}

impl Mesh {
    /// Ranks that hold the whole model each.
    pub fn of_data(data: usize) -> Self {
        Self { data, tensor: 1 }
    }

    /// Returns the number of ranks.
    pub fn ranks(self) -> usize {
        self.data * self.tensor
    }

    /// Returns which share of the micro-batches is a rank's.
    pub fn data_index(self, rank: usize) -> usize {
        rank / self.tensor
    }

    /// Returns which slice of every layer is a rank's.
    pub fn tensor_index(self, rank: usize) -> usize {
        rank % self.tensor
    }

    /// Lists the ranks with the same slices as `rank`, in the order of their shares.
    pub fn data_group(self, rank: usize) -> Vec<usize> {
        (0..self.data).map(|data| data * self.tensor + self.tensor_index(rank)).collect()
    }

    /// Lists the ranks with the same micro-batches as `rank`, in the order of their slices.
    pub fn tensor_group(self, rank: usize) -> Vec<usize> {
        let first = self.data_index(rank) * self.tensor;
        (first..first + self.tensor).collect()
    }

    /// Returns which of `items` the ranks with this data index compute. Shares are contiguous and differ by one item at
    /// most; with fewer items than shares some are empty.
    pub fn share(self, data_index: usize, items: usize) -> Range<usize> {
        part(data_index, self.data, items)
    }
}

/// Returns part `index` of `items` that are cut into `parts` contiguous parts, which differ by one item at most.
pub fn part(index: usize, parts: usize, items: usize) -> Range<usize> {
    // A plan asks for sizes that no machine has.
    let end = |index: usize| (index as u128 * items as u128 / parts as u128) as usize;
    end(index)..end(index + 1)
}

#[cfg(test)]
mod tests {
    use super::Mesh;

    #[test]
    fn shares_cover_everything_once() {
        for data in 1..9 {
            for items in 0..40 {
                let shares: Vec<_> = (0..data).map(|index| Mesh::of_data(data).share(index, items)).collect();
                assert_eq!((shares[0].start, shares[data - 1].end), (0, items));
                assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
                let sizes = || shares.iter().map(ExactSizeIterator::len);
                assert!(sizes().max().expect("a rank") <= sizes().min().expect("a rank") + 1);
            }
        }
    }

    #[test]
    fn groups_are_the_rows_and_columns_of_the_grid() {
        let mesh = Mesh { data: 2, tensor: 3 };
        assert_eq!((mesh.ranks(), mesh.data_index(4), mesh.tensor_index(4)), (6, 1, 1));
        assert_eq!((mesh.data_group(4), mesh.tensor_group(4)), (vec![1, 4], vec![3, 4, 5]));
        assert_eq!((mesh.data_group(0), mesh.tensor_group(2)), (vec![0, 3], vec![0, 1, 2]));
        let alone = Mesh::of_data(1);
        assert_eq!((alone.data_group(0), alone.tensor_group(0)), (vec![0], vec![0]));
    }
}
