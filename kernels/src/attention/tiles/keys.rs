//! Keys and values of one segment and head as left operands.

use super::super::pack::segment;
use super::{Lines, Shape, head_rows};
use crate::amx::pack::{left, left_from_columns};
use crate::amx::rows::F32Rows;
use crate::amx::{BLOCK, DEPTH, LANES};

/// What the forward pass multiplies from the left.
pub(super) struct ForwardKeys {
    /// `K`: `[16 keys][depth]` tiles.
    pub(super) k: Lines,
    /// `V^T`: `[16 elements][32 keys]` tiles.
    pub(super) v_t: Lines,
    /// Tiles along the keys.
    pub(super) key_tiles: usize,
}

/// What the backward pass multiplies from the left.
pub(super) struct BackwardKeys {
    /// `K`: `[16 keys][depth]` tiles.
    pub(super) k: Lines,
    /// `V`: likewise.
    pub(super) v: Lines,
    /// `K^T`: `[16 elements][32 keys]` tiles.
    pub(super) k_t: Lines,
    /// Tiles along the keys.
    pub(super) key_tiles: usize,
}

impl ForwardKeys {
    /// # Safety
    /// The processor has what `Tier::Amx` has.
    pub(super) unsafe fn new(shape: Shape, qkv: &[f32], ends: &[u32], head: usize) -> Self {
        let (k, v, tokens) = keys_and_values(shape, qkv, ends, head);
        // SAFETY: as the caller vouches.
        unsafe {
            Self {
                k: packed(shape, &k, tokens),
                v_t: packed_transposed(shape, &v, tokens),
                key_tiles: tokens.div_ceil(DEPTH),
            }
        }
    }
}

impl BackwardKeys {
    /// # Safety
    /// The processor has what `Tier::Amx` has.
    pub(super) unsafe fn new(shape: Shape, qkv: &[f32], ends: &[u32], head: usize) -> Self {
        let (k, v, tokens) = keys_and_values(shape, qkv, ends, head);
        // SAFETY: as the caller vouches.
        unsafe {
            Self {
                k: packed(shape, &k, tokens),
                v: packed(shape, &v, tokens),
                k_t: packed_transposed(shape, &k, tokens),
                key_tiles: tokens.div_ceil(DEPTH),
            }
        }
    }
}

/// The keys and values of one segment and head, and its tokens.
fn keys_and_values<'a>(
    shape: Shape,
    qkv: &'a [f32],
    ends: &[u32],
    head: usize,
) -> (F32Rows<'a>, F32Rows<'a>, usize) {
    let width = shape.layout.width();
    let rows = segment(qkv, width, ends);
    let of = |columns| head_rows(rows, width, &columns);
    (of(shape.layout.k(head)), of(shape.layout.v(head)), rows.len() / width)
}

/// Packs `[tokens, head_dim]` with `k` along the head, up to a whole block of 32 tokens.
unsafe fn packed(shape: Shape, rows: &F32Rows<'_>, tokens: usize) -> Lines {
    let groups = tokens.div_ceil(BLOCK) * 2;
    let mut out = Lines::tiles(groups * shape.depth);
    for group in 0..groups {
        // SAFETY: as the caller vouches; the operand has `depth` tiles for each group of 16.
        unsafe { left(rows, group * LANES, tokens, 0, shape.depth, out.tile_mut(group * shape.depth)) };
    }
    out
}

/// Packs the transpose, `[head_dim, tokens]`, with `k` along the tokens.
unsafe fn packed_transposed(shape: Shape, rows: &F32Rows<'_>, tokens: usize) -> Lines {
    let key_tiles = tokens.div_ceil(DEPTH);
    let mut out = Lines::tiles(2 * shape.depth * key_tiles);
    if tokens == 0 {
        return out;
    }
    for block in 0..shape.depth {
        let halves = [2 * block, 2 * block + 1].map(|row| out.tile_mut(row * key_tiles));
        // SAFETY: as the caller vouches; each row of tiles has `key_tiles`.
        unsafe { left_from_columns(rows, 0, tokens, block * DEPTH, key_tiles, halves) };
    }
    out
}
