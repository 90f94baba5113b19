//! Forward on tiles.
//!
//! A task is a block of queries of the heads that share a key head. For each block of keys and each column
//! tile: scores, softmax, sums. What the task writes and the next one reads is fetched meanwhile.

use std::ops::Range;

use rayon::prelude::*;

use super::super::{AttentionConfig, QkvLayout};
use super::fetch::Fetch;
use super::keys::ForwardKeys;
use super::lanes::{self, PerQuery, Softmax};
use super::queries::{Columns, ForwardQueries};
use super::{Lines, SCORES, Shape, Shared, product, rows, written};
use crate::amx::{BLOCK, LANES, TILE, Tiles};

/// Blocks of 32 keys that go through the softmax at once.
const KEY_BLOCKS: usize = 8;

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
    let tasks = split(shape, segments);
    let t = qkv.len() / layout.width();
    let mut lse = Vec::new();
    // SAFETY: the tasks cover all rows and heads, and write all of what they own.
    let out = unsafe {
        written(t * layout.q_width(), |out| {
            lse = written(t * layout.num_heads, |lse| {
                (0..tasks.len()).into_par_iter().for_each(|n| {
                    let (segment, columns) = tasks[n];
                    let fetch = [
                        Fetch::of(out.0, layout.q_width(), columns, segments[segment] as usize),
                        tasks.get(n + 1).map_or_else(Fetch::default, |&(segment, next)| {
                            Fetch::of(qkv.as_ptr(), layout.width(), next, segments[segment] as usize)
                        }),
                    ];
                    let rows = super::super::pack::segment(qkv, layout.width(), &segments[segment..]);
                    let block = Block::new(columns, &keys[segment * heads + columns.kv_head], fetch);
                    block.run(rows, segments[segment] as usize, out, lse);
                });
            });
        })
    };
    (out, lse)
}

/// Cuts every segment and key head into blocks of queries.
fn split(shape: Shape, segments: &[u32]) -> Vec<(usize, Columns)> {
    let queries = shape.block_of_queries(COLUMNS);
    let mut tasks = Vec::new();
    for (segment, ends) in segments.windows(2).enumerate() {
        let tokens = (ends[1] - ends[0]) as usize;
        for kv_head in 0..shape.layout.num_kv_heads {
            let columns = |first| Columns { shape, kv_head, first, end: tokens.min(first + queries) };
            tasks.extend((0..tokens).step_by(queries).map(|first| (segment, columns(first))));
        }
    }
    tasks
}

/// One task.
struct Block<'a> {
    columns: Columns,
    keys: &'a ForwardKeys,
    queries: ForwardQueries,
    states: Vec<Softmax>,
    /// Scores of one step.
    scores: Lines,
    /// Probabilities of one step.
    p: Lines,
    /// What this task writes, and what the next one reads.
    fetch: [Fetch; 2],
}

/// One column tile and some blocks of keys that it sees.
struct Step {
    column: usize,
    keys: Range<usize>,
    /// Whether the column tile has sums from earlier steps.
    add: bool,
}

impl<'a> Block<'a> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn new(columns: Columns, keys: &'a ForwardKeys, fetch: [Fetch; 2]) -> Self {
        Self {
            columns,
            keys,
            queries: ForwardQueries::new(columns.shape, columns.count()),
            states: vec![Softmax::new(); columns.count()],
            scores: Lines::sums(KEY_BLOCKS * SCORES),
            p: Lines::tiles(2 * KEY_BLOCKS),
            fetch,
        }
    }

    fn steps(&self) -> Vec<Step> {
        let (shape, columns) = (self.columns.shape, self.columns);
        let seen = shape.seen(columns.first).start..columns.end.div_ceil(BLOCK);
        let mut steps = Vec::new();
        // Blocks of keys are counted from the segment's start.
        for block in (seen.start / KEY_BLOCKS..seen.end.div_ceil(KEY_BLOCKS)).map(|n| n * KEY_BLOCKS) {
            for column in 0..columns.count() {
                let seen = shape.seen(columns.query(column));
                let keys = seen.start.max(block)..seen.end.min(block + KEY_BLOCKS);
                if !keys.is_empty() {
                    steps.push(Step { column, add: keys.start > seen.start, keys });
                }
            }
        }
        steps
    }

    /// # Safety
    /// Tiles are available; `rows` is the segment, and `start` its first token.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn run(mut self, rows: &[f32], start: usize, out: &Shared<'_>, lse: &Shared<'_>) {
        let columns = self.columns;
        // SAFETY: as the caller vouches.
        unsafe { columns.pack_columns(rows, columns.shape.layout.width(), &mut self.queries.q) };
        let tiles = Tiles::configure();
        let steps = self.steps();
        // SAFETY: as the caller vouches; the steps are inside the operands.
        unsafe {
            for step in &steps {
                self.multiply_scores(&tiles, step);
                let moved = self.weigh(step);
                self.add_values(&tiles, step, moved);
            }
            for column in 0..columns.count() {
                self.store(column, start, out, lse);
            }
        }
    }

    /// Multiplies the scores of a step.
    #[inline(always)]
    unsafe fn multiply_scores(&mut self, tiles: &Tiles, step: &Step) {
        let depth = self.columns.shape.depth;
        let q = self.queries.q.tile(2 * step.column * depth);
        for (n, key) in step.keys.clone().enumerate() {
            let k = self.keys.k.tile(2 * key * depth);
            let scores = self.scores.f32s_mut(n * SCORES);
            // SAFETY: as the caller vouches.
            unsafe { product(tiles, (k, depth), (q, depth), depth, (scores, BLOCK), false) };
        }
    }

    /// Turns scores into probabilities; returns the factor on earlier sums, if it is not 1.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    #[inline]
    unsafe fn weigh(&mut self, step: &Step) -> Option<PerQuery> {
        let cfg = self.columns.shape.cfg;
        let query = self.columns.query(step.column);
        let mut factor = cfg.scale * std::f32::consts::LOG2_E;
        for (n, key) in step.keys.clone().enumerate() {
            let scores = self.scores.f32s_mut(n * SCORES);
            // SAFETY: as the caller vouches.
            unsafe {
                if let Some(cap) = cfg.soft_cap {
                    lanes::cap_scores(scores, cfg.scale, cap);
                    factor = std::f32::consts::LOG2_E;
                }
                if self.columns.shape.hides(query, key * BLOCK) {
                    lanes::hide(scores, query, key * BLOCK, cfg.window);
                }
            }
        }
        let scores = self.scores.f32s(0);
        let p = [0, 1].map(|half| self.p.tile_mut(half * KEY_BLOCKS));
        // SAFETY: as the caller vouches.
        unsafe { self.states[step.column].step(scores, step.keys.len() * BLOCK, factor, p, &mut self.fetch) }
    }

    /// Adds the values that the probabilities weigh, after earlier sums are moved to the new maximum.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    #[inline]
    unsafe fn add_values(&mut self, tiles: &Tiles, step: &Step, moved: Option<PerQuery>) {
        let shape = self.columns.shape;
        let out = self.queries.out_t.f32s_mut(step.column * shape.depth * SCORES);
        // SAFETY: as the caller vouches.
        unsafe {
            if let (Some(factor), true) = (moved, step.add) {
                lanes::scale_columns(out, shape.padded(), factor);
            }
            for block in 0..shape.depth {
                let v = self.keys.v_t.tile(2 * block * self.keys.key_tiles).add(step.keys.start * TILE);
                let p = (self.p.tile(0), KEY_BLOCKS);
                let out = (out.add(block * SCORES), BLOCK);
                product(tiles, (v, self.keys.key_tiles), p, step.keys.len(), out, step.add);
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
            let out = out.at(at, (queries - 1) * layout.q_width() + layout.head_dim);
            rows::store_rows(sums, layout.head_dim, reciprocal, queries, out, layout.q_width());
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
