//! Frozen weights of which every rank keeps a part: what a rank keeps, what it puts together, and what it sends.
//!
//! With `n` ranks, `W` bytes of a block's matrices or of a range of the head's rows, and `t` tokens of a micro-batch:
//!
//! ```text
//! weights    all_gather   (n - 1) W / n          each block, forward and in training backward; each range of the head
//! embedding  exchange     4 t (n - 1) / n        the rows that a rank asks for, if no token comes twice
//! embedding  exchange     t (n - 1) / n rows     those that it is asked for
//! ```
//!
//! All ranks make as many passes as the one with most micro-batches.

use seedcorn_kernels::frozen::Compute;

use super::frozen::matrices;
use crate::model::{ModelSpec, Pass, Precision, Slice, rows_of_range};
use crate::parallel::Sent;
use crate::weights::TensorInfo;

/// The weights of a model that ranks share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    ranks: u64,
    /// Bytes of the matrices of each block.
    blocks: Vec<Vec<u64>>,
    /// Rows of a table.
    rows: u64,
    row_bytes: u64,
    /// Rows of a range of the head.
    range: u64,
    /// Whether the head is the embedding.
    tied: bool,
}

impl Parts {
    /// Takes the sizes of a slice of a model as [`super::Frozen::new`] does.
    pub fn new(
        spec: &ModelSpec,
        precision: Precision,
        slice: Slice,
        stored: &dyn Fn(&str) -> Option<TensorInfo>,
        ranks: u64,
    ) -> Self {
        let shape = [slice.vocabulary(spec).len(), spec.hidden_size];
        let value = match precision.compute {
            Compute::F32 => 4,
            Compute::Bf16 => 2,
        };
        Self {
            ranks,
            blocks: matrices(spec, precision, slice, stored),
            rows: shape[0] as u64,
            row_bytes: value * shape[1] as u64,
            range: rows_of_range(shape, precision.compute, spec.block_values() / slice.of) as u64,
            tied: spec.tie_word_embeddings,
        }
    }

    /// Returns the bytes of blocks that a rank keeps.
    pub fn own_blocks(&self, rank: u64) -> u64 {
        self.blocks.iter().map(|block| self.own_block(rank, block)).fold(0, u64::saturating_add)
    }

    /// Returns the bytes that a rank keeps of the embedding, or of a head of its own.
    pub fn own_table(&self, rank: u64) -> u64 {
        self.ranges().map(|rows| self.part(rank, rows) * self.row_bytes).fold(0, u64::saturating_add)
    }

    /// Returns the bytes of the largest thing that is put together. What comes next is on its way meanwhile: as much
    /// again, but for what a rank keeps itself.
    pub fn largest(&self) -> u64 {
        let block = self.blocks.iter().map(|block| block.iter().sum::<u64>()).max().unwrap_or(0);
        block.max(self.range.min(self.rows) * self.row_bytes)
    }

    /// Returns the bytes of what is at hand and what is on its way, at most.
    pub fn gathered(&self) -> u64 {
        self.largest().saturating_mul(2) - self.largest() / self.ranks
    }

    /// Returns how often a rank gathers in a pass.
    pub fn stops(&self, pass: Pass) -> u64 {
        let (blocks, ranges) = (self.blocks.len() as u64, self.ranges().count() as u64);
        match pass {
            Pass::Forward => blocks + ranges,
            Pass::Training => 2 * blocks + ranges,
        }
    }

    /// Returns the bytes of weights that a rank sends in a pass.
    pub fn of_pass(&self, rank: u64, pass: Pass) -> u64 {
        let blocks = self.own_blocks(rank);
        let blocks = if pass == Pass::Training { blocks.saturating_mul(2) } else { blocks };
        blocks.saturating_add(self.own_table(rank)).saturating_mul(self.ranks - 1)
    }

    /// Returns what the rank that sends most sends in passes over `items` micro-batches of up to so many tokens.
    pub fn most(&self, items: u64, tokens: u64, pass: Pass) -> Vec<Sent> {
        let turns = items.div_ceil(self.ranks);
        // The last part is never smaller than another.
        let weights = self.of_pass(self.ranks - 1, pass);
        let others = tokens.min(self.rows) * (self.ranks - 1) / self.ranks;
        let rows = others.saturating_mul(4 + self.row_bytes);
        vec![
            Sent { op: "embedding", collective: "exchange", bytes: rows.saturating_mul(turns) },
            Sent { op: "weights", collective: "all_gather", bytes: weights.saturating_mul(turns) },
        ]
    }

    /// Returns the bytes of a row of a table.
    pub fn row_bytes(&self) -> u64 {
        self.row_bytes
    }

    /// Returns the ranks that share the weights.
    pub fn ranks(&self) -> u64 {
        self.ranks
    }

    /// Whether the embedding is the head.
    pub fn tied(&self) -> bool {
        self.tied
    }

    fn own_block(&self, rank: u64, block: &[u64]) -> u64 {
        block.iter().map(|matrix| self.part(rank, *matrix)).fold(0, u64::saturating_add)
    }

    /// Rows of each range of a table.
    fn ranges(&self) -> impl Iterator<Item = u64> + '_ {
        let range = self.range as usize;
        (0..self.rows).step_by(range).map(|start| self.range.min(self.rows - start))
    }

    /// As [`crate::model::Cut`] cuts.
    fn part(&self, rank: u64, items: u64) -> u64 {
        let start = |rank: u64| (u128::from(rank) * u128::from(items) / u128::from(self.ranks)) as u64;
        start(rank + 1) - start(rank)
    }
}
