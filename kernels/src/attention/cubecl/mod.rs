//! The op as CubeCL kernels in tiles of 32 queries by 32 keys, with an online softmax as on the CPU.
//!
//! A cube of 16 x 16 units takes a tile of queries of one head (forward, `dq`), or a tile of keys of one key head and
//! all query heads that read it, in order (`dk`, `dv`): every sum has one owner and one order, without atomics. Tiles
//! are counted from the start of a segment, so a sample gives the same bits in a pack and alone. Of every score, 2 x 2
//! belong to a unit; heads are fetched 32 elements at a time, so shared memory does not grow with their width.
//!
//! `Compute::Bf16` means `F32` here, as everywhere without a matrix unit. Where the device has one, the kernels of
//! `attention/tensor_core` run.

mod backward;
mod forward;
mod tile;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::tensor_core::call;
use super::{AttentionBackend, AttentionConfig, QkvLayout};
use crate::frozen::Compute;
use crate::gpu::{self, Words};
use crate::tensor_core::client::{Gpu, sure};

/// Queries and keys of a tile.
const BLOCK: usize = 32;
/// Units of a cube along each side of a tile; each has 2 x 2 scores.
const SIDE: usize = 16;
/// Elements from one row of a tile in shared memory to the next: one more than it has, so that a column lies in
/// different banks.
const STRIDE: usize = BLOCK + 1;
/// What a hidden score is instead of minus infinity, which WGSL cannot write.
const HIDDEN: f32 = -3.0e38;

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    head_dim: usize,
    /// Query heads of a key head.
    group: usize,
    windowed: bool,
    capped: bool,
}

/// What is known when a kernel is launched.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Numbers {
    /// Elements of a row of `qkv`.
    width: u32,
    num_heads: u32,
    num_kv_heads: u32,
    /// `BLOCK`, which a driver would unroll loops over if it knew it: compiling then takes ten times as long.
    block: u32,
    window: u32,
    scale: f32,
    cap: f32,
}

fn plan(layout: QkvLayout, cfg: AttentionConfig) -> Plan {
    let (windowed, capped) = (cfg.window.is_some(), cfg.soft_cap.is_some());
    Plan { head_dim: layout.head_dim, group: layout.group(), windowed, capped }
}

fn numbers(layout: QkvLayout, cfg: AttentionConfig) -> NumbersLaunch {
    // A window beyond all positions is none; sums with it stay inside 32 bits.
    let window = cfg.window.map_or(0, |window| window.min(1 << 30));
    let [width, heads, kv_heads] =
        [layout.width(), layout.num_heads, layout.num_kv_heads].map(|size| size as u32);
    let block = BLOCK as u32;
    NumbersLaunch::new(width, heads, kv_heads, block, window as u32, cfg.scale, cfg.soft_cap.unwrap_or(1.0))
}

/// The tiles of all segments, and how many: first row of the segment, first row of the tile in it, rows of the segment.
fn tiles(client: &Client, segments: &[u32]) -> (Words, usize) {
    let mut tiles = Vec::new();
    for ends in segments.windows(2) {
        let len = ends[1] - ends[0];
        for start in (0..len).step_by(BLOCK) {
            tiles.extend([ends[0], start, len]);
        }
    }
    (Words::upload(client, &tiles), tiles.len() / 3)
}

/// A cube for each tile and head.
fn cubes(tiles: usize, heads: usize) -> CubeCount {
    CubeCount::Static(tiles as u32, heads as u32, 1)
}

fn units() -> CubeDim {
    CubeDim::new_1d((SIDE * SIDE) as u32)
}

impl AttentionBackend for CubeBackend {
    fn packed_attention(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        segments: Arc<[u32]>,
        cfg: AttentionConfig,
    ) -> FloatTensor<Self> {
        Self::packed_attention_forward(qkv, layout, segments, cfg).0
    }

    fn packed_attention_forward(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        segments: Arc<[u32]>,
        cfg: AttentionConfig,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let qkv = gpu::contiguous(qkv);
        let Some(mut gpu) = unit(&qkv, cfg) else { return forward::launch(&qkv, layout, &segments, cfg) };
        let result = call::forward(&mut gpu, &gpu::words(&qkv), layout, &segments, cfg);
        let [out, lse] = sure(result);
        let tokens = gpu::dims(&qkv)[0];
        (out.tensor(&qkv, [tokens, layout.q_width()]), lse.tensor(&qkv, [tokens, layout.num_heads]))
    }

    fn packed_attention_backward(
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
        layout: QkvLayout,
        segments: Arc<[u32]>,
        cfg: AttentionConfig,
    ) -> FloatTensor<Self> {
        let inputs = [qkv, out, lse, d_out].map(gpu::contiguous);
        let Some(mut gpu) = unit(&inputs[0], cfg) else {
            return backward::launch(inputs, layout, &segments, cfg);
        };
        let words = inputs.each_ref().map(gpu::words);
        let result = call::backward(&mut gpu, words.each_ref(), layout, &segments, cfg);
        sure(result).tensor(&inputs[0], gpu::dims(&inputs[0]))
    }
}

/// The device of a tensor, if the products go to its matrix units: with `Compute::Bf16` where it has them.
fn unit(qkv: &CubeTensor, cfg: AttentionConfig) -> Option<Gpu<'_>> {
    (cfg.compute == Compute::Bf16).then(|| Gpu::of(qkv)).flatten()
}
