//! A decoder of which every data rank keeps a part, and how a rank comes by the rest.
//!
//! The bytes of each matrix are cut into as many parts as there are ranks; the parts of a block travel together. Tables
//! are cut by rows, so that a rank can ask for those of its tokens, and the head can be swept a range of rows at a time.
//!
//! ```text
//! rows   a table of which every rank keeps some rows
//! walk   a pass through the model: what is needed is there, what comes next is on its way
//! ```

mod rows;
mod walk;

use std::ops::Range;
use std::sync::Arc;

use seedcorn_kernels::frozen::{Compute, Form, FrozenWeight, Storage};

use super::block::Block;
use crate::parallel::Bytes;
pub(super) use rows::SharedTable;
pub(crate) use rows::rows_of_range;
pub use walk::Pass;
pub(super) use walk::Walk;

/// Which part of every matrix a rank keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The rank's place among those that share the matrices.
    pub index: usize,
    /// How many they are.
    pub count: usize,
}

impl Cut {
    /// Returns what the rank with place `index` keeps of `items`.
    fn part(self, index: usize, items: usize) -> Range<usize> {
        index * items / self.count..(index + 1) * items / self.count
    }

    /// Returns what this rank keeps.
    fn own(self, items: usize) -> Range<usize> {
        self.part(self.index, items)
    }

    /// Takes this rank's part of a matrix, behind those of the matrices before it; returns the matrix without elements.
    pub(super) fn keep(
        self,
        storage: &Storage,
        shape: [usize; 2],
        compute: Compute,
        kept: &mut Vec<u8>,
    ) -> FrozenWeight {
        let form = storage.form();
        storage.copy_bytes(self.own(form.bytes()), kept);
        FrozenWeight::away(form, shape, compute)
    }
}

/// What one rank keeps of a decoder.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) cut: Cut,
    /// The parts of each block's matrices, one behind the other.
    pub(super) blocks: Vec<Arc<[u8]>>,
    pub(super) embed: SharedTable,
    /// Where it is not the embedding.
    pub(super) head: Option<SharedTable>,
}

impl Shards {
    fn head(&self) -> &SharedTable {
        self.head.as_ref().unwrap_or(&self.embed)
    }

    /// Returns the bytes that this rank keeps.
    pub(super) fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|part| part.len()).sum();
        blocks + self.embed.bytes() + self.head.as_ref().map_or(0, SharedTable::bytes)
    }

    /// Returns the bytes that each rank keeps of a block.
    fn lengths(&self, block: &Block) -> Vec<usize> {
        let of = |index| block.weights().map(move |weight| self.cut.part(index, form(weight).bytes()).len());
        (0..self.cut.count).map(|index| of(index).sum()).collect()
    }

    /// Puts a block together from the parts of all ranks. One thread copies: memory that it gives back it finds again
    /// for the next block.
    fn bring(&self, block: &Block, parts: &[Bytes]) {
        let mut rest: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        for weight in block.weights() {
            let form = form(weight);
            let pieces = rest.iter_mut().enumerate().map(|(index, rest)| {
                let (piece, after) = rest.split_at(self.cut.part(index, form.bytes()).len());
                *rest = after;
                piece
            });
            weight.bring(form.storage(pieces));
        }
    }
}

fn form(weight: &FrozenWeight) -> &Form {
    weight.form().expect("matrices of a decoder in parts come and go")
}
