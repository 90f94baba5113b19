//! Forward on tiles.
//!
//! A task is a block of queries of the heads that share a key head. For each block of keys and each column
//! tile: scores, softmax, sums. The scores of the next column tile are multiplied before the softmax of this
//! one, so that the matrix unit works while the vector units do.

use rayon::prelude::*;

use super::super::{AttentionConfig, QkvLayout};
use super::keys::ForwardKeys;
use super::lanes::{self, Softmax};
use super::queries::{Columns, ForwardQueries};
use super::{Lines, SCORES, Shape, Shared, product, written};
use crate::amx::{BLOCK, LANES, TILE, Tiles};

/// Blocks of 32 keys that go through the softmax at once.
const KEY_BLOCKS: usize = 4;

/// Column tiles of a task.
const COLUMNS: usize = 8;

/// Computes the output `[t, num_heads * head_dim]` and the log-sum-exp `[t, num_heads]`.
pub(in super::super) fn attention(
    qkv: &[f32],
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
) -> (Vec<f32>, Vec<f32>) {
    assert!(crate::amx::available(), "tiles asked for without a check");
    let shape = Shape::new(layout, cfg);
    let heads = layout.num_kv_heads;
    let keys: Vec<ForwardKeys> = (0..(segments.len() - 1) * heads)
        .into_par_iter()
        // SAFETY: tiles are available.
        .map(|n| unsafe { ForwardKeys::new(shape, qkv, &segments[n / heads..], n % heads) })
        .collect();
    let queries = shape.block_of_queries(COLUMNS);
    let mut tasks = Vec::new();
    for (segment, ends) in segments.windows(2).enumerate() {
        let tokens = (ends[1] - ends[0]) as usize;
        for kv_head in 0..heads {
            let blocks = (0..tokens).step_by(queries);
            tasks.extend(
                blocks.map(|first| {
                    (segment, Columns { shape, kv_head, first, end: tokens.min(first + queries) })
                }),
            );
        }
    }
    let t = qkv.len() / layout.width();
    let mut lse = Vec::new();
    // SAFETY: the tasks cover all rows and heads, and write all of what they own.
    let out = unsafe {
        written(t * layout.q_width(), |out| {
            lse = written(t * layout.num_heads, |lse| {
                tasks.into_par_iter().for_each(|(segment, columns)| {
                    let keys = &keys[segment * heads + columns.kv_head];
                    let rows = super::super::pack::segment(qkv, layout.width(), &segments[segment..]);
                    Block::new(columns, keys).run(rows, segments[segment] as usize, out, lse);
                });
            });
        })
    };
    (out, lse)
}

/// One task.
struct Block<'a> {
    columns: Columns,
    keys: &'a ForwardKeys,
    queries: ForwardQueries,
    states: Vec<Softmax>,
    /// Scores of two column tiles.
    scores: Lines,
    /// Probabilities of one column tile.
    p: Lines,
}

impl<'a> Block<'a> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn new(columns: Columns, keys: &'a ForwardKeys) -> Self {
        Self {
            columns,
            keys,
            queries: ForwardQueries::new(columns.shape, columns.count()),
            states: vec![Softmax::new(); columns.count()],
            scores: Lines::sums(2 * KEY_BLOCKS * SCORES),
            p: Lines::tiles(2 * KEY_BLOCKS),
        }
    }

    /// # Safety
    /// Tiles are available; `rows` is the segment, and `start` its first token.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn run(mut self, rows: &[f32], start: usize, out: &Shared<'_>, lse: &Shared<'_>) {
        let (shape, columns) = (self.columns.shape, self.columns);
        // SAFETY: as the caller vouches.
        unsafe { columns.pack_columns(rows, shape.layout.width(), &mut self.queries.q) };
        let tiles = Tiles::configure();
        let seen = shape.seen(columns.first).start..columns.end.div_ceil(BLOCK);
        // Blocks of keys are counted from the segment's start.
        let steps: Vec<_> = (seen.start / KEY_BLOCKS..seen.end.div_ceil(KEY_BLOCKS))
            .flat_map(|block| (0..columns.count()).map(move |column| (block * KEY_BLOCKS, column)))
            .map(|(block, column)| {
                let seen = shape.seen(columns.query(column));
                (column, seen.start.max(block)..seen.end.min(block + KEY_BLOCKS), seen.start)
            })
            .filter(|(_, keys, _)| !keys.is_empty())
            .collect();
        for (n, (column, keys, first)) in steps.iter().enumerate() {
            // SAFETY: as the caller vouches; the steps are inside the operands.
            unsafe {
                if n == 0 {
                    self.multiply_scores(&tiles, *column, keys, 0);
                }
                if let Some((column, keys, _)) = steps.get(n + 1) {
                    self.multiply_scores(&tiles, *column, keys, (n + 1) % 2);
                }
                self.add_values(&tiles, *column, keys, n % 2, keys.start > *first);
            }
        }
        for column in 0..columns.count() {
            // SAFETY: as the caller vouches.
            unsafe { self.store(column, start, out, lse) };
        }
    }

    /// Multiplies the scores of a column tile and blocks of keys.
    #[inline(always)]
    unsafe fn multiply_scores(
        &mut self,
        tiles: &Tiles,
        column: usize,
        keys: &std::ops::Range<usize>,
        slot: usize,
    ) {
        let depth = self.columns.shape.depth;
        let q = self.queries.q.tile(2 * column * depth);
        for (n, key) in keys.clone().enumerate() {
            let k = self.keys.k.tile(2 * key * depth);
            let scores = self.scores.f32s_mut((slot * KEY_BLOCKS + n) * SCORES);
            // SAFETY: as the caller vouches.
            unsafe { product(tiles, (k, depth), (q, depth), depth, (scores, BLOCK), false) };
        }
    }

    /// Turns scores into probabilities and adds the values that they weigh.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    #[inline]
    unsafe fn add_values(
        &mut self,
        tiles: &Tiles,
        column: usize,
        keys: &std::ops::Range<usize>,
        slot: usize,
        add: bool,
    ) {
        let shape = self.columns.shape;
        let query = self.columns.query(column);
        let mut factor = shape.cfg.scale * std::f32::consts::LOG2_E;
        // SAFETY: as the caller vouches, here and below.
        unsafe {
            for (n, key) in keys.clone().enumerate() {
                let scores = self.scores.f32s_mut((slot * KEY_BLOCKS + n) * SCORES);
                if let Some(cap) = shape.cfg.soft_cap {
                    lanes::cap_scores(scores, shape.cfg.scale, cap);
                    factor = std::f32::consts::LOG2_E;
                }
                if shape.hides(query, key * BLOCK) {
                    lanes::hide(scores, query, key * BLOCK, shape.cfg.window);
                }
            }
            let scores = self.scores.f32s(slot * KEY_BLOCKS * SCORES);
            let p = [0, 1].map(|half| self.p.tile_mut(half * KEY_BLOCKS));
            let old = self.states[column].step(scores, keys.len() * BLOCK, factor, p);
            let out = self.queries.out_t.f32s_mut(column * shape.depth * SCORES);
            if let (Some(old), true) = (old, add) {
                lanes::scale_columns(out, shape.padded(), old);
            }
            for block in 0..shape.depth {
                let v = self.keys.v_t.tile(2 * block * self.keys.key_tiles).add(keys.start * TILE);
                let out = (out.add(block * SCORES), BLOCK);
                product(tiles, (v, self.keys.key_tiles), (p[0], KEY_BLOCKS), keys.len(), out, add);
            }
        }
    }

    /// Divides the sums of a column tile and writes its rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn store(&self, column: usize, start: usize, out: &Shared<'_>, lse: &Shared<'_>) {
        use std::arch::x86_64::{_mm512_div_ps, _mm512_set1_ps, _mm512_storeu_ps};
        let (columns, layout) = (self.columns, self.columns.shape.layout);
        let (head, queries) = (columns.head(column), columns.queries(column));
        let state = self.states[column];
        let reciprocal = state.sum.map(|sum| _mm512_div_ps(_mm512_set1_ps(1.0), sum));
        let first = start + columns.query(column);
        let sums = self.queries.out_t.f32s(column * columns.shape.depth * SCORES);
        let mut last = [[0.0f32; BLOCK]; 2];
        // SAFETY: as the caller vouches; no other task has these queries of this head.
        unsafe {
            let at = first * layout.q_width() + layout.q(head).start;
            let rows = out.at(at, (queries - 1) * layout.q_width() + layout.head_dim);
            lanes::store_rows(sums, layout.head_dim, reciprocal, queries, rows, layout.q_width());
            for half in 0..2 {
                _mm512_storeu_ps(last[0].as_mut_ptr().add(half * LANES), state.max[half]);
                _mm512_storeu_ps(last[1].as_mut_ptr().add(half * LANES), state.sum[half]);
            }
            for i in 0..queries {
                let value = last[0][i] * std::f32::consts::LN_2 + last[1][i].ln();
                lse.at((first + i) * layout.num_heads + head, 1).write(value);
            }
        }
    }
}
