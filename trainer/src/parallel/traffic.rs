//! Bytes between ranks, from the sizes of a step alone.
//!
//! Counted are payloads that a rank sends to others; what it keeps for itself does not travel. With `n` ranks that share
//! the data, `m` in all, `L` trained values of a rank and `p` parts of the tree in its share (see [`super::reduce`]):
//!
//! ```text
//! loss         all_gather   (n - 1) (1 + 8 p)         one byte says whether to stop
//! gradients    exchange     4 p (L - L / n)           each rank gets its slice of every part
//! gradients    exchange     4 (n - 1) (L / n)         the finished slices
//! gradients    all_reduce   4 (L - L / n) + 4 (n - 1) (L / n)    instead of both, with `parallel.reduction = "fast"`
//! compare      all_gather   32 (m - 1)                a hash, before a checkpoint and at the end
//! evaluation   all_gather   8 (n - 1) (batches / n)   losses
//! ```

use serde::Serialize;

use super::Mesh;
use super::reduce::parts;
use crate::recipe::Reduction;

/// Bytes of a hash.
const DIGEST: u64 = 32;

/// What one rank sends in one kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// What it is for, as errors name it.
    pub op: &'static str,
    /// The collective.
    pub collective: &'static str,
    /// Bytes to all other ranks together.
    pub bytes: u64,
}

/// What each rank of a mesh sends.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    mesh: Mesh,
    /// Micro-batches of a step that train something.
    items: usize,
    /// Trained values that a rank has gradients of.
    length: usize,
    reduction: Reduction,
}

impl Traffic {
    /// Takes the micro-batches of a step and the trained values that a rank has gradients of.
    pub fn new(mesh: Mesh, items: usize, length: usize) -> Self {
        Self { mesh, items, length, reduction: Reduction::Tree }
    }

    /// Adds gradients in another way. What is said then is what a ring sends; an engine may choose otherwise.
    #[must_use]
    pub fn reduced(self, reduction: Reduction) -> Self {
        Self { reduction, ..self }
    }

    /// Returns what a rank sends to those with other shares of the data in a step, in the order of its calls; nothing where
    /// there is one share.
    pub fn of_step(&self, rank: usize) -> Vec<Sent> {
        let others = self.others();
        if others == 0 {
            return Vec::new();
        }
        let index = self.mesh.data_index(rank);
        let parts = parts(self.items, &self.mesh.share(index, self.items)).len() as u64;
        let (all, own) = (self.length as u64, self.mesh.share(index, self.length).len() as u64);
        let loss = Sent { op: "loss", collective: "all_gather", bytes: others * (1 + 8 * parts) };
        if self.reduction == Reduction::Fast {
            let bytes = 4 * (all - own) + 4 * others * own;
            return vec![loss, Sent { op: "gradients", collective: "all_reduce", bytes }];
        }
        vec![
            loss,
            Sent { op: "gradients", collective: "exchange", bytes: 4 * parts * (all - own) },
            Sent { op: "gradients", collective: "exchange", bytes: 4 * others * own },
        ]
    }

    /// Returns what the rank that sends most sends in a step.
    pub fn most_of_step(&self) -> Vec<Sent> {
        let all = (0..self.mesh.ranks()).map(|rank| self.of_step(rank));
        all.max_by_key(|sent| sent.iter().map(|one| one.bytes).sum::<u64>()).unwrap_or_default()
    }

    /// Returns what a rank sends before each checkpoint.
    pub fn of_checkpoint(&self) -> Option<Sent> {
        let others = self.mesh.ranks() as u64 - 1;
        (others > 0).then(|| Sent { op: "compare", collective: "all_gather", bytes: DIGEST * others })
    }

    /// Returns what a rank sends to those with other shares in an evaluation of so many batches, at most.
    pub fn of_evaluation(&self, batches: usize) -> Option<Sent> {
        let others = self.others();
        let largest = batches.div_ceil(self.mesh.data) as u64;
        (others > 0).then(|| Sent { op: "evaluation", collective: "all_gather", bytes: 8 * others * largest })
    }

    /// Returns the parts of the tree that a rank holds at one time, while its last micro-batch is computed: finished
    /// ones, and sums that wait for a neighbour.
    pub fn held_sums(&self) -> usize {
        let of_share = |index| {
            let mut most = 0;
            for (finished, part) in parts(self.items, &self.mesh.share(index, self.items)).iter().enumerate()
            {
                // As in `Tree::push`: one sum for every bit of the number of items so far.
                let waiting = (0..part.len()).map(usize::count_ones).max().unwrap_or(0);
                most = most.max(finished + waiting as usize);
            }
            most
        };
        (0..self.mesh.data).map(of_share).max().unwrap_or(0)
    }

    /// Returns the most parts of the tree that the share of a rank is.
    pub fn most_parts(&self) -> usize {
        let of_share = |index| parts(self.items, &self.mesh.share(index, self.items)).len();
        (0..self.mesh.data).map(of_share).max().unwrap_or(0)
    }

    fn others(&self) -> u64 {
        self.mesh.data as u64 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_would_send_as_much_where_shares_are_whole_parts() {
        let traffic = Traffic::new(Mesh::of_data(4), 8, 1000);
        let sent = traffic.of_step(0);
        let gradients: u64 = sent.iter().filter(|one| one.op == "gradients").map(|one| one.bytes).sum();
        assert_eq!(gradients, 2 * 3 * 4 * 1000 / 4);
        assert_eq!((sent[0].bytes, traffic.of_checkpoint().map(|one| one.bytes)), (3 * 9, Some(96)));
        assert_eq!(traffic.of_evaluation(9).map(|one| one.bytes), Some(8 * 3 * 3));
        let alone = Traffic::new(Mesh::of_data(1), 8, 1000);
        assert!(alone.of_step(0).is_empty() && alone.most_of_step().is_empty());
        assert!(alone.of_checkpoint().is_none() && alone.of_evaluation(9).is_none());
    }

    #[test]
    fn sums_wait_for_their_neighbours() {
        let held = |data, items| Traffic::new(Mesh::of_data(data), items, 1).held_sums();
        // With the fourth of four: the sum of two, and the third.
        assert_eq!((held(1, 1), held(1, 2), held(1, 4), held(1, 8)), (0, 1, 2, 3));
        assert_eq!((held(4, 4), held(2, 4)), (0, 1));
        // Rank 1 of two has micro-batch 3 alone, then 4 and 5: with the last, both 3 and 4 wait.
        assert_eq!(held(2, 6), 2);
        assert_eq!(Traffic::new(Mesh::of_data(2), 6, 1).most_parts(), 2);
    }
}
