//! The gradient on tiles; the formulas are derived in the `backward.rs` above.
//!
//! A task is up to [`CHUNK`] queries of a segment, of all heads that share a key head. It walks blocks of
//! queries; inside them blocks of keys; `dK` and `dV` of a block of keys add up over the column tiles, so
//! over the group and then the queries, in one chain. Where a segment has several chunks, each leaves its own
//! `dK` and `dV`, which are added in their order at the end.

use std::arch::x86_64::_mm512_set1_ps;
use std::ops::Range;

use rayon::prelude::*;

use super::super::backward::Saved;
use super::super::{AttentionConfig, QkvLayout};
use super::fetch::Fetch;
use super::keys::BackwardKeys;
use super::lanes::{self, GradientOut};
use super::queries::{BackwardQueries, Columns};
use super::{Lines, SCORES, Shape, Shared, product, rows, written};
use crate::amx::{BLOCK, Tiles};

/// Queries of a task.
const CHUNK: usize = 512;

/// Column tiles of a block of queries.
const COLUMNS: usize = 6;

/// Blocks of 32 keys between two additions to `dQ`.
const KEY_BLOCKS: usize = 8;

/// Gradients that one chunk of queries gives to the keys that it sees.
struct Part {
    /// Blocks of 32 keys.
    blocks: Range<usize>,
    /// `dK` and `dV`: `[block of keys][32 elements of the head]`, 32 x 32 each.
    sums: [Lines; 2],
}

impl Part {
    fn new(shape: Shape, blocks: Range<usize>) -> Self {
        let sums = || Lines::sums(blocks.len() * shape.depth * SCORES);
        Self { sums: [sums(), sums()], blocks }
    }

    /// Returns where the sums of a block of keys and of 32 elements of the head start.
    fn at(&self, shape: Shape, key: usize, block: usize) -> usize {
        ((key - self.blocks.start) * shape.depth + block) * SCORES
    }
}

/// Computes `dqkv: [t, width]`.
pub(in super::super) fn attention(
    saved: Saved<'_>,
    layout: QkvLayout,
    segments: &[u32],
    cfg: AttentionConfig,
) -> Vec<f32> {
    assert!(crate::amx::available(), "tiles asked for without a check");
    let shape = Shape::new(layout, cfg);
    let heads = layout.num_kv_heads;
    let keys: Vec<BackwardKeys> = (0..(segments.len() - 1) * heads)
        .into_par_iter()
        // SAFETY: tiles are available.
        .map(|n| unsafe { BackwardKeys::new(shape, saved.qkv, &segments[n / heads..], n % heads) })
        .collect();
    let mut tasks = Vec::new();
    for (segment, ends) in segments.windows(2).enumerate() {
        let tokens = (ends[1] - ends[0]) as usize;
        for kv_head in 0..heads {
            let chunks = (0..tokens).step_by(CHUNK);
            let columns = |first| Columns { shape, kv_head, first, end: tokens.min(first + CHUNK) };
            tasks.extend(chunks.map(|first| (segment, columns(first))));
        }
    }
    let write = |dqkv: &Shared<'_>| {
        let parts: Vec<Part> = tasks
            .par_iter()
            .map(|&(segment, chunk)| {
                let keys = &keys[segment * heads + chunk.kv_head];
                // SAFETY: tiles are available.
                unsafe { Chunk::new(chunk, keys).run(saved, &segments[segment..], dqkv) }
            })
            .collect();
        let mut rest = parts.as_slice();
        let mut ranges = Vec::new();
        for (segment, ends) in segments.windows(2).enumerate() {
            let count = ((ends[1] - ends[0]) as usize).div_ceil(CHUNK);
            for kv_head in 0..heads {
                ranges.push((segment, kv_head, rest.split_off(..count).expect("a part for each chunk")));
            }
        }
        ranges.into_par_iter().for_each(|(segment, kv_head, parts)| {
            let tokens = segments[segment] as usize..segments[segment + 1] as usize;
            // SAFETY: no other task has these keys of this head.
            unsafe { add_parts(shape, kv_head, parts, tokens, dqkv) };
        });
    };
    // SAFETY: the chunks write `dQ` of all rows and heads, and the parts are `dK` and `dV` of all of them.
    unsafe { written(saved.qkv.len(), write) }
}

/// Adds what the chunks of a segment leave in their order, and writes it as rows.
///
/// # Safety
/// Tiles are available; no other task writes `dK` and `dV` of these tokens and this head.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn add_parts(shape: Shape, kv_head: usize, parts: &[Part], tokens: Range<usize>, dqkv: &Shared<'_>) {
    let layout = shape.layout;
    for (n, (columns, scale)) in
        [(layout.k(kv_head), shape.cfg.scale), (layout.v(kv_head), 1.0)].into_iter().enumerate()
    {
        for (i, token) in tokens.clone().enumerate() {
            for (block, start) in columns.clone().step_by(BLOCK).enumerate() {
                let width = BLOCK.min(columns.end - start);
                let out = dqkv.at(token * layout.width() + start, width);
                let parts = parts.iter().filter(|part| part.blocks.contains(&(i / BLOCK)));
                let sums = parts.map(|part| {
                    part.sums[n].f32s(part.at(shape, i / BLOCK, block)).wrapping_add(i % BLOCK * BLOCK)
                });
                // SAFETY: as the caller vouches; the parts have the blocks.
                unsafe { rows::store_sum(sums, scale, out, width) };
            }
        }
    }
}

/// One task.
struct Chunk<'a> {
    /// All its queries.
    whole: Columns,
    keys: &'a BackwardKeys,
    queries: BackwardQueries,
    /// Scores and `dP^T` of one step.
    scores: Lines,
    /// `P^T` and `dS^T` of a block of keys as left tiles: `[16 keys][column tile]`.
    left: [Lines; 2],
    /// `dS^T` as right tiles: `[column tile][2][KEY_BLOCKS]`.
    ds: Lines,
    /// Which blocks of keys have sums.
    started: Vec<bool>,
    part: Part,
}

/// One column tile and one block of keys that it sees.
struct Step {
    key: usize,
    column: usize,
    /// All column tiles that see the block of keys.
    seeing: Range<usize>,
}

/// The steps of a block of queries: blocks of keys in order, inside them column tiles.
fn steps(columns: Columns) -> Vec<Step> {
    let keys = columns.shape.seen(columns.first).start..columns.end.div_ceil(BLOCK);
    let mut steps = Vec::new();
    for key in keys {
        let seeing = columns.seeing(key);
        let of = |column| Step { key, column, seeing: seeing.clone() };
        steps.extend(seeing.clone().map(of));
    }
    steps
}

impl<'a> Chunk<'a> {
    fn new(chunk: Columns, keys: &'a BackwardKeys) -> Self {
        let shape = chunk.shape;
        let columns = shape.block_of_queries(COLUMNS) / BLOCK * shape.layout.group();
        // The first queries or, from there on, those of the same number see each of these blocks.
        let blocks = shape.seen(chunk.first).start..chunk.end.div_ceil(BLOCK);
        Self {
            whole: chunk,
            keys,
            queries: BackwardQueries::new(shape, columns),
            scores: Lines::sums(2 * SCORES),
            left: [Lines::tiles(2 * columns), Lines::tiles(2 * columns)],
            ds: Lines::tiles(2 * columns * KEY_BLOCKS),
            started: vec![false; blocks.len()],
            part: Part::new(shape, blocks),
        }
    }

    /// # Safety
    /// Tiles are available; `ends` are those of the segment.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn run(mut self, saved: Saved<'_>, ends: &[u32], dqkv: &Shared<'_>) -> Part {
        let (chunk, shape) = (self.whole, self.whole.shape);
        let tiles = Tiles::configure();
        let step = shape.block_of_queries(COLUMNS);
        for first in (chunk.first..chunk.end).step_by(step) {
            let columns = Columns { first, end: chunk.end.min(first + step), ..chunk };
            let mut fetch = self.fetch(columns, saved, ends[0] as usize, dqkv);
            // SAFETY: as the caller vouches; the steps are inside the operands.
            unsafe {
                self.queries.load(columns, saved, ends);
                for step in &steps(columns) {
                    self.multiply_scores(&tiles, step);
                    self.differentiate(columns, step, &mut fetch);
                    self.finish(&tiles, columns, step);
                }
                for column in 0..columns.count() {
                    self.store_dq(columns, column, ends[0] as usize, dqkv);
                }
            }
        }
        self.part
    }

    /// What this block of queries writes and the next one reads.
    fn fetch(&self, columns: Columns, saved: Saved<'_>, start: usize, dqkv: &Shared<'_>) -> [Fetch; 4] {
        let layout = columns.shape.layout;
        let next = Columns {
            first: columns.end,
            end: self.whole.end.min(2 * columns.end - columns.first),
            ..columns
        };
        [
            Fetch::of(dqkv.0, layout.width(), columns, start),
            Fetch::of(saved.qkv.as_ptr(), layout.width(), next, start),
            Fetch::of(saved.out.as_ptr(), layout.q_width(), next, start),
            Fetch::of(saved.d_out.as_ptr(), layout.q_width(), next, start),
        ]
    }

    /// Adds what a block of keys gives to `dK` and `dV` and, after every few blocks, to `dQ`, once the last
    /// column tile that sees it is done.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    #[inline]
    unsafe fn finish(&mut self, tiles: &Tiles, columns: Columns, step: &Step) {
        let (shape, Step { key, seeing, .. }) = (columns.shape, step);
        if step.column + 1 < seeing.end {
            return;
        }
        let count = columns.count();
        let add = std::mem::replace(&mut self.started[key - self.part.blocks.start], true);
        // `dV` of `P` and `dO`, `dK` of `dS` and `Q`.
        for (n, block) in [0, 1].into_iter().flat_map(|n| (0..shape.depth).map(move |block| (n, block))) {
            let a = (self.left[n].tile(seeing.start), count);
            let b = (self.queries.rows[1 - n].tile(2 * block * count + seeing.start), count);
            let at = self.part.at(shape, *key, block);
            let c = (self.part.sums[1 - n].f32s_mut(at), BLOCK);
            // SAFETY: as the caller vouches.
            unsafe { product(tiles, a, b, seeing.len(), c, add) };
        }
        let end = columns.end.div_ceil(BLOCK);
        if (key + 1).is_multiple_of(KEY_BLOCKS) || key + 1 == end {
            // SAFETY: as the caller vouches.
            unsafe { self.add_dq(tiles, columns, key / KEY_BLOCKS * KEY_BLOCKS..key + 1) };
        }
    }

    /// Multiplies scores and `dP^T` of a step.
    #[inline(always)]
    unsafe fn multiply_scores(&mut self, tiles: &Tiles, step: &Step) {
        let depth = self.whole.shape.depth;
        for (n, left) in [&self.keys.k, &self.keys.v].into_iter().enumerate() {
            let a = (left.tile(2 * step.key * depth), depth);
            let b = (self.queries.columns[n].tile(2 * step.column * depth), depth);
            let c = (self.scores.f32s_mut(n * SCORES), BLOCK);
            // SAFETY: as the caller vouches.
            unsafe { product(tiles, a, b, depth, c, false) };
        }
    }

    /// Turns scores and `dP^T` of a step into `P^T` and `dS^T`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    #[inline]
    unsafe fn differentiate(&mut self, columns: Columns, step: &Step, fetch: &mut [Fetch; 4]) {
        let (cfg, key, column) = (columns.shape.cfg, step.key, step.column);
        let scores = self.scores.f32s_mut(0);
        let query = columns.query(column);
        let mut factor = cfg.scale * std::f32::consts::LOG2_E;
        let count = columns.count();
        let [p, ds] = &mut self.left;
        let out = GradientOut {
            p: [p.tile_mut(column), p.tile_mut(count + column)],
            ds: [ds.tile_mut(column), ds.tile_mut(count + column)],
            ds_right: [0, 1]
                .map(|half| self.ds.tile_mut((2 * column + half) * KEY_BLOCKS + key % KEY_BLOCKS)),
        };
        // SAFETY: as the caller vouches.
        unsafe {
            if let Some(cap) = cfg.soft_cap {
                lanes::cap_scores(scores, cfg.scale, cap);
                factor = std::f32::consts::LOG2_E;
            }
            if columns.shape.hides(query, key * BLOCK) {
                lanes::hide(scores, query, key * BLOCK, cfg.window);
            }
            let d = scores.add(SCORES);
            let lse = lanes::load(self.queries.lse.f32s(column * BLOCK));
            let delta = lanes::load(self.queries.delta.f32s(column * BLOCK));
            if let Some(cap) = cfg.soft_cap {
                lanes::gradient_step::<true>(scores, d, factor, cap, [lse, delta], out, fetch);
            } else {
                lanes::gradient_step::<false>(scores, d, factor, 0.0, [lse, delta], out, fetch);
            }
        }
    }

    /// Adds what some blocks of keys give to `dQ` of each column tile.
    #[inline(always)]
    unsafe fn add_dq(&mut self, tiles: &Tiles, columns: Columns, keys: Range<usize>) {
        let shape = columns.shape;
        for column in 0..columns.count() {
            let all = shape.seen(columns.query(column));
            let seen = all.start.max(keys.start)..all.end.min(keys.end);
            if seen.is_empty() {
                continue;
            }
            let ds = self.ds.tile(2 * column * KEY_BLOCKS + seen.start % KEY_BLOCKS);
            for block in 0..shape.depth {
                let k_t = self.keys.k_t.tile(2 * block * self.keys.key_tiles + seen.start);
                let out = (self.queries.dq_t.f32s_mut((column * shape.depth + block) * SCORES), BLOCK);
                let (a, b) = ((k_t, self.keys.key_tiles), (ds, KEY_BLOCKS));
                // SAFETY: as the caller vouches.
                unsafe { product(tiles, a, b, seen.len(), out, seen.start > all.start) };
            }
        }
    }

    /// Writes `dQ` of a column tile.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn store_dq(&self, columns: Columns, column: usize, start: usize, dqkv: &Shared<'_>) {
        let (shape, layout) = (columns.shape, columns.shape.layout);
        let queries = columns.queries(column);
        let at = (start + columns.query(column)) * layout.width() + layout.q(columns.head(column)).start;
        let out = dqkv.at(at, (queries - 1) * layout.width() + layout.head_dim);
        let sums = self.queries.dq_t.f32s(column * shape.depth * SCORES);
        let factor = [_mm512_set1_ps(shape.cfg.scale); 2];
        // SAFETY: as the caller vouches; no other task has these queries of this head.
        unsafe { rows::store_rows(sums, layout.head_dim, factor, queries, out, layout.width()) };
    }
}
