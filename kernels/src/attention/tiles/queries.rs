//! A block of queries of the heads that share a key head, as right operands.

use std::ops::Range;

use super::super::pack::segment;
use super::{Lines, SCORES, Shape, head_rows, rows};
use crate::amx::pack::{right_from_columns, right_from_rows};
use crate::amx::rows::F32Rows;
use crate::amx::{BLOCK, DEPTH, LANES};

/// The column tiles of one task: 32 queries of one head each, see the module.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) shape: Shape,
    /// Key head.
    pub(super) kv_head: usize,
    /// First query, counted in the segment; a multiple of 32.
    pub(super) first: usize,
    /// One past the last query.
    pub(super) end: usize,
}

impl Columns {
    /// Returns the number of column tiles.
    pub(super) fn count(self) -> usize {
        (self.end - self.first).div_ceil(BLOCK) * self.shape.layout.group()
    }

    /// Returns the first query of a column tile.
    pub(super) fn query(self, column: usize) -> usize {
        self.first + column / self.shape.layout.group() * BLOCK
    }

    /// Returns the query head of a column tile.
    pub(super) fn head(self, column: usize) -> usize {
        let group = self.shape.layout.group();
        self.kv_head * group + column % group
    }

    /// Returns how many queries of a column tile exist.
    pub(super) fn queries(self, column: usize) -> usize {
        BLOCK.min(self.end - self.query(column))
    }

    /// Returns the column tiles in which some query sees the 32 keys of block `key`.
    pub(super) fn seeing(self, key: usize) -> Range<usize> {
        let group = self.shape.layout.group();
        let blocks = self.count() / group;
        let sees = |block: &usize| self.shape.seen(self.first + block * BLOCK).contains(&key);
        let first = (0..blocks).find(sees).unwrap_or(blocks);
        let count = (first..blocks).take_while(sees).count();
        first * group..(first + count) * group
    }

    /// Packs one head of rows as `[column tile][2 x 16 queries][depth]` right tiles, `k` along the head.
    ///
    /// # Safety
    /// The processor has what `Tier::Amx` has; `out` has the tiles.
    pub(super) unsafe fn pack_columns(self, rows: &[f32], stride: usize, out: &mut Lines) {
        let depth = self.shape.depth;
        for column in 0..self.count() {
            let rows = self.rows(rows, stride, column);
            for half in 0..2 {
                let row = self.query(column) + half * LANES;
                let out = out.tile_mut((2 * column + half) * depth);
                // SAFETY: as the caller vouches.
                unsafe { right_from_columns(&rows, row, self.end, 0, depth, out) };
            }
        }
    }

    /// Packs one head of rows as `[16 elements][column tile]` right tiles, `k` along the queries.
    ///
    /// # Safety
    /// The processor has what `Tier::Amx` has; `out` has the tiles.
    pub(super) unsafe fn pack_rows(self, rows: &[f32], stride: usize, out: &mut Lines) {
        let count = self.count();
        for (column, block) in (0..count).flat_map(|c| (0..self.shape.depth).map(move |block| (c, block))) {
            let rows = self.rows(rows, stride, column);
            let halves = [2 * block, 2 * block + 1].map(|half| out.tile_mut(half * count + column));
            let row = self.query(column);
            // SAFETY: as the caller vouches.
            unsafe { right_from_rows(&rows, row, self.end, block * DEPTH, 1, halves) };
        }
    }

    fn rows(self, rows: &[f32], stride: usize, column: usize) -> F32Rows<'_> {
        head_rows(rows, stride, &self.shape.layout.q(self.head(column)))
    }
}

/// Queries of the forward pass: `Q`, and room for their sums.
pub(super) struct ForwardQueries {
    /// `[column tile][2 x 16 queries][depth]`
    pub(super) q: Lines,
    /// `O^T`: `[column tile][padded head_dim][32]`
    pub(super) out_t: Lines,
}

impl ForwardQueries {
    pub(super) fn new(shape: Shape, columns: usize) -> Self {
        Self {
            q: Lines::tiles(2 * columns * shape.depth),
            out_t: Lines::sums(columns * shape.depth * SCORES),
        }
    }
}

/// Queries of the backward pass, and room for their gradient.
pub(super) struct BackwardQueries {
    /// `Q` and `dO`: `[column tile][2 x 16 queries][depth]`, `k` along the head.
    pub(super) columns: [Lines; 2],
    /// `Q` and `dO`: `[16 elements][column tile]`, `k` along the queries.
    pub(super) rows: [Lines; 2],
    /// Log-sum-exp in powers of two, and `delta`, 32 for each column tile.
    pub(super) lse: Lines,
    pub(super) delta: Lines,
    /// `dQ^T`: `[column tile][padded head_dim][32]`
    pub(super) dq_t: Lines,
}

impl BackwardQueries {
    pub(super) fn new(shape: Shape, columns: usize) -> Self {
        let tiles = || Lines::tiles(2 * columns * shape.depth);
        Self {
            columns: [tiles(), tiles()],
            rows: [tiles(), tiles()],
            lse: Lines::sums(columns * BLOCK),
            delta: Lines::sums(columns * BLOCK),
            dq_t: Lines::sums(columns * shape.depth * SCORES),
        }
    }

    /// Packs a block of queries of the segment that `ends` says.
    ///
    /// # Safety
    /// The processor has what `Tier::Amx` has; the block has no more columns than this was made for.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    pub(super) unsafe fn load(
        &mut self,
        of: Columns,
        saved: super::super::backward::Saved<'_>,
        ends: &[u32],
    ) {
        let layout = of.shape.layout;
        let (width, q_width) = (layout.width(), layout.q_width());
        let qkv = segment(saved.qkv, width, ends);
        let d_out = segment(saved.d_out, q_width, ends);
        // SAFETY: as the caller vouches.
        unsafe {
            of.pack_columns(qkv, width, &mut self.columns[0]);
            of.pack_columns(d_out, q_width, &mut self.columns[1]);
            of.pack_rows(qkv, width, &mut self.rows[0]);
            of.pack_rows(d_out, q_width, &mut self.rows[1]);
        }
        let out = segment(saved.out, q_width, ends);
        let lse = segment(saved.lse, layout.num_heads, ends);
        for column in 0..of.count() {
            let (head, first, queries) = (of.head(column), of.query(column), of.queries(column));
            for lane in 0..BLOCK {
                // Queries that do not exist have operands of zeros: any finite value will do.
                let mut values = (0.0, 0.0);
                if lane < queries {
                    let i = first + lane;
                    let row = i * q_width + layout.q(head).start..i * q_width + layout.q(head).end;
                    let (out, d_out) = (&out[row.clone()], &d_out[row]);
                    // SAFETY: both have the elements of one head.
                    let delta = unsafe { rows::dot(out.as_ptr(), d_out.as_ptr(), layout.head_dim) };
                    values = (lse[i * layout.num_heads + head] * std::f32::consts::LOG2_E, delta);
                }
                // SAFETY: both have 32 elements for each column.
                unsafe {
                    self.lse.f32s_mut(column * BLOCK).add(lane).write(values.0);
                    self.delta.f32s_mut(column * BLOCK).add(lane).write(values.1);
                }
            }
        }
    }
}
