//! Attention in bf16 on the matrix unit: operands rounded to bf16, sums and softmax in f32.
//!
//! Scores are computed transposed, `S^T = K Q^T`, 32 keys x 32 queries at a time, so that a vector register
//! holds 16 queries: maxima, sums and masks need no exchange between lanes, and the probabilities that come
//! out of the softmax already lie as the next product reads them, with `k` along keys or along queries:
//!
//! ```text
//! O^T += V^T P^T        dV += P^T dO        dK += dS^T Q        dQ^T += K^T dS^T
//! ```
//!
//! Nothing but the operands is ever transposed, once per segment (keys, values) or block of queries.
//!
//! Query heads that share a key head lie side by side as columns; a column tile is 32 queries of one head,
//! and column tiles are counted `(query / 32) * group + head in the group`, so those that see a block of keys
//! are consecutive.
//!
//! # Numerics
//! Queries, keys, values, probabilities and the gradients of outputs and scores are rounded to bf16 where they
//! enter a product. `2^x` has a relative error of 3e-6.

#![expect(unsafe_code, reason = "vector instructions and tiles")]

pub(super) mod backward;
mod fetch;
pub(super) mod forward;
mod keys;
mod lanes;
mod queries;
mod rows;

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::{AttentionConfig, QkvLayout};
use crate::amx::rows::F32Rows;
use crate::amx::{BLOCK, Block, DEPTH, TILE, Tiles};
use crate::frozen::Compute;
use crate::isa::Tier;

/// A cache line, so that tiles start at one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([MaybeUninit<u32>; 16]);

/// bf16 elements of a [`Line`].
const LINE_BF16: usize = 32;

/// f32 elements of a [`Line`].
const LINE_F32: usize = 16;

/// Scores of 32 keys x 32 queries.
const SCORES: usize = BLOCK * BLOCK;

/// Memory for operands and sums, in whole cache lines.
struct Lines(Vec<Line>);

impl Lines {
    /// Makes room for `count` tiles of bf16, to be written before they are read.
    fn tiles(count: usize) -> Self {
        Self::unwritten(count * TILE / LINE_BF16)
    }

    /// Makes room for `count` f32, a multiple of 16, to be written before they are read.
    fn sums(count: usize) -> Self {
        Self::unwritten(count / LINE_F32)
    }

    fn unwritten(count: usize) -> Self {
        let mut lines = Vec::with_capacity(count);
        // SAFETY: a line may be without a value.
        unsafe { lines.set_len(count) };
        Self(lines)
    }

    /// Returns where tile `index` starts.
    fn tile(&self, index: usize) -> *const u16 {
        self.0[index * TILE / LINE_BF16..].as_ptr().cast()
    }

    fn tile_mut(&mut self, index: usize) -> *mut u16 {
        self.0[index * TILE / LINE_BF16..].as_mut_ptr().cast()
    }

    /// Returns f32 elements from `start` on; a multiple of 16.
    fn f32s(&self, start: usize) -> *const f32 {
        self.0[start / LINE_F32..].as_ptr().cast()
    }

    fn f32s_mut(&mut self, start: usize) -> *mut f32 {
        self.0[start / LINE_F32..].as_mut_ptr().cast()
    }
}

/// Whether attention runs on tiles.
pub(super) fn chosen(tier: Tier, compute: Compute) -> bool {
    tier == Tier::Amx && compute == Compute::Bf16
}

/// What every task knows.
#[derive(Clone, Copy)]
struct Shape {
    layout: QkvLayout,
    cfg: AttentionConfig,
    /// Tiles along `head_dim`, with zeros at the end.
    depth: usize,
}

impl Shape {
    fn new(layout: QkvLayout, cfg: AttentionConfig) -> Self {
        Self { layout, cfg, depth: layout.head_dim.div_ceil(DEPTH) }
    }

    /// `head_dim` with its padding.
    fn padded(self) -> usize {
        self.depth * DEPTH
    }

    /// Blocks of 32 keys that some of the 32 queries from `query` on see.
    fn seen(self, query: usize) -> Range<usize> {
        self.cfg.first_key(query) / BLOCK..query / BLOCK + 1
    }

    /// Whether one of the 32 queries from `query` on does not see one of the 32 keys from `key` on.
    fn hides(self, query: usize, key: usize) -> bool {
        query < key + BLOCK || self.cfg.first_key(query + BLOCK - 1) > key
    }

    /// Queries of a task, so that about `columns` column tiles share what is read of the keys.
    fn block_of_queries(self, columns: usize) -> usize {
        (columns / self.layout.group()).max(1) * BLOCK
    }
}

/// The rows of one segment as operands: one head, `head_dim` wide.
fn head_rows<'a>(rows: &'a [f32], stride: usize, head: &Range<usize>) -> F32Rows<'a> {
    F32Rows { data: rows.get(head.start..).unwrap_or_default(), stride, width: head.len() }
}

/// Multiplies 32 rows of left tiles by 32 columns of right tiles, both `tiles_per_row` tiles apart.
///
/// # Safety
/// As [`Tiles::block`]; `c` has rows of 32.
#[inline(always)]
unsafe fn product(
    tiles: &Tiles,
    (a, a_row): (*const u16, usize),
    (b, b_row): (*const u16, usize),
    k_tiles: usize,
    (c, ldc): (*mut f32, usize),
    add: bool,
) {
    let block = Block {
        a: [a, a.wrapping_add(a_row * TILE)],
        b: [b, b.wrapping_add(b_row * TILE)],
        k_tiles,
        c,
        ldc,
        add,
    };
    // SAFETY: as the caller vouches.
    unsafe { tiles.block(block) };
}

/// A result that tasks write at once, each at rows and columns of its own.
struct Shared<'a>(*mut f32, usize, PhantomData<&'a mut [f32]>);

// SAFETY: tasks write disjoint elements, which is what `Shared::at` asks of its callers.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares memory that is written before it is read, whether it holds values yet or not.
    fn new(memory: &'a mut [MaybeUninit<f32>]) -> Self {
        Self(memory.as_mut_ptr().cast(), memory.len(), PhantomData)
    }

    /// Returns where `count` elements from `index` on lie; no two tasks may ask for the same.
    fn at(&self, index: usize, count: usize) -> *mut f32 {
        assert!(index + count <= self.1, "elements {index} .. +{count} of {}", self.1);
        self.0.wrapping_add(index)
    }
}

/// Makes a vector of `len` elements that `write` writes, all of them.
///
/// # Safety
/// `write` leaves no element without a value.
unsafe fn written(len: usize, write: impl FnOnce(&Shared<'_>)) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    write(&Shared::new(&mut values.spare_capacity_mut()[..len]));
    // SAFETY: the capacity is `len`, and `write` wrote all of it.
    unsafe { values.set_len(len) };
    values
}
