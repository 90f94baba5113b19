//! Bytes between ranks that hold one model together, from the sizes of a micro-batch alone.
//!
//! A sum of `n` values over `t` ranks is two exchanges: `4 (n - n / t)` bytes, each rank's part of the addends, and
//! `4 (t - 1) (n / t)`, the finished parts. With `T` tokens of width `d` and `l` blocks, of which `a` are computed again
//! with their first half's sum:
//!
//! ```text
//! embedding    a sum of T d                                 a micro-batch
//! activations  2 l sums of T d forward, a again             a micro-batch
//!              one for the head and 2 l - 1 backward        nothing trains below the first block
//! softmax      all_gather, 16 (t - 1) a target              a micro-batch
//! factors      a sum of what every slice uses, all_gather 4 (t - 1) of what each has for itself      a step
//! stop         all_gather (t - 1)                           a step
//! ```

use super::traffic::Sent;
use super::{EMBEDDING, Mesh, part};
use crate::model::{ACTIVATIONS, FACTORS, ROW_SUM_BYTES, SOFTMAX};

/// Whether a rank was asked to stop.
pub(crate) const STOP: &str = "stop";

/// The sizes that decide what ranks with slices of one model send each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelTraffic {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Blocks.
    pub layers: usize,
    /// Blocks of which the backward pass adds up the first half once more.
    pub again: usize,
    /// Trained values that every slice uses.
    pub shared: usize,
    /// Trained values that each slice has for itself.
    pub parts: usize,
}

/// A micro-batch as its traffic sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize {
    /// Tokens.
    pub tokens: usize,
    /// Those that have a target.
    pub targets: usize,
}

impl ModelTraffic {
    /// Returns what a rank sends for a micro-batch that is trained, in the order of its first calls.
    pub fn of_micro_batch(&self, mesh: Mesh, rank: usize, size: BatchSize) -> Vec<Sent> {
        let sums = (2 * self.layers + self.again) + 1 + (2 * self.layers).saturating_sub(1);
        self.of_pass(mesh, rank, size, sums as u64)
    }

    /// Returns what a rank sends for a batch that is evaluated.
    pub fn of_evaluated(&self, mesh: Mesh, rank: usize, size: BatchSize) -> Vec<Sent> {
        self.of_pass(mesh, rank, size, 2 * self.layers as u64)
    }

    /// Returns what a rank sends once a step.
    pub fn of_update(&self, mesh: Mesh, rank: usize) -> Vec<Sent> {
        let others = mesh.tensor as u64 - 1;
        vec![
            Sent { op: STOP, collective: "all_gather", bytes: others },
            Sent { op: FACTORS, collective: "exchange", bytes: sum(mesh, rank, self.shared) },
            Sent {
                op: FACTORS,
                collective: "all_gather",
                bytes: (4 * others).saturating_mul(self.parts as u64),
            },
        ]
    }

    fn of_pass(&self, mesh: Mesh, rank: usize, size: BatchSize, sums: u64) -> Vec<Sent> {
        let of_stream = sum(mesh, rank, size.tokens.saturating_mul(self.hidden));
        let softmax =
            (mesh.tensor as u64 - 1).saturating_mul(ROW_SUM_BYTES.saturating_mul(size.targets) as u64);
        vec![
            Sent { op: EMBEDDING, collective: "exchange", bytes: of_stream },
            Sent { op: ACTIVATIONS, collective: "exchange", bytes: of_stream.saturating_mul(sums) },
            Sent { op: SOFTMAX, collective: "all_gather", bytes: softmax },
        ]
    }
}

/// Bytes that a rank sends to add up so many values.
fn sum(mesh: Mesh, rank: usize, values: usize) -> u64 {
    let own = part(mesh.tensor_index(rank), mesh.tensor, values).len() as u64;
    let finished = (mesh.tensor as u64 - 1).saturating_mul(own);
    (values as u64 - own).saturating_add(finished).saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_would_send_as_much() {
        let model = ModelTraffic { hidden: 8, layers: 3, again: 0, shared: 120, parts: 30 };
        let (mesh, size) = (Mesh { data: 2, tensor: 4 }, BatchSize { tokens: 10, targets: 7 });
        let sent = |rank| model.of_micro_batch(mesh, rank, size).into_iter().map(|one| one.bytes);
        // Each sum 2 (t - 1) / t of 320 bytes.
        assert!(sent(1).eq([480, 480 * 12, 3 * 16 * 7]) && sent(7).eq(sent(1)));
        let evaluated = model.of_evaluated(mesh, 0, size);
        assert_eq!(evaluated[1].bytes, 480 * 6);
        let again = ModelTraffic { again: 2, ..model };
        assert_eq!(again.of_micro_batch(mesh, 0, size)[1].bytes, 480 * 14);
        let update: Vec<u64> = model.of_update(mesh, 0).into_iter().map(|one| one.bytes).collect();
        assert_eq!(update, [3, 720, 360]);
    }
}
