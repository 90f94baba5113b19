//! What makes a raw score a score: scale, cap, and which are seen.

use cubecl_core as cubecl;
use cubecl_core::prelude::*;

use super::Plan;

/// What a hidden score is in place of minus infinity, whose differences are no numbers.
pub(super) const HIDDEN: f32 = -3.0e38;

/// What is known when a kernel is launched.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Numbers {
    /// Elements of a row of `qkv`.
    pub(crate) width: u32,
    pub(crate) num_heads: u32,
    pub(crate) num_kv_heads: u32,
    pub(crate) window: u32,
    pub(crate) scale: f32,
    pub(crate) cap: f32,
}

/// A tile of a segment: its first row in the pack, the tile's first row in it, its rows.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) first: usize,
    pub(super) len: usize,
}

/// The tile of this cube.
#[cube]
pub(super) fn span(tiles: &[u32]) -> Span {
    let at = CUBE_POS_X as usize * 3;
    Span { start: tiles[at] as usize, first: tiles[at + 1] as usize, len: tiles[at + 2] as usize }
}

/// Bounds a scaled score: `cap tanh(s / cap)`.
#[cube]
pub(super) fn capped(score: f32, numbers: &Numbers, #[comptime] plan: Plan) -> f32 {
    if comptime!(plan.capped) { numbers.cap * (score / numbers.cap).tanh() } else { score }
}

/// The derivative of the cap: `1 - tanh^2`, from the capped score.
#[cube]
pub(super) fn slope(score: f32, numbers: &Numbers, #[comptime] plan: Plan) -> f32 {
    if comptime!(plan.capped) {
        (1.0f32 - score / numbers.cap) * (1.0f32 + score / numbers.cap)
    } else {
        1.0f32.runtime()
    }
}

/// Whether a query of a segment of `len` rows sees a key of it.
#[cube]
pub(super) fn sees(query: usize, key: usize, len: usize, numbers: &Numbers, #[comptime] plan: Plan) -> bool {
    let mut seen = query < len && key <= query;
    if comptime!(plan.windowed) {
        seen = seen && key + numbers.window as usize > query;
    }
    seen
}

/// The first key of the first block that a query sees.
#[cube]
pub(super) fn first_block(query: usize, numbers: &Numbers, #[comptime] plan: Plan) -> usize {
    let mut first = 0usize.runtime();
    if comptime!(plan.windowed) {
        let window = numbers.window as usize;
        if query + 1 > window {
            first = (query + 1 - window) / comptime!(plan.tile.block) * comptime!(plan.tile.block);
        }
    }
    first
}
