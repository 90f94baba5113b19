//! The op as CubeCL kernels: a cube takes a head of a token.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::QkNormBackend;
use crate::attention::QkvLayout;
use crate::gpu::{self, arg};
use crate::rms_norm::{gradient, normalise};

/// Units of a cube: a power of two.
const UNITS: u32 = 32;

impl QkNormBackend for CubeBackend {
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn qk_norm(
        qkv: FloatTensor<Self>,
        q_weight: FloatTensor<Self>,
        k_weight: FloatTensor<Self>,
        layout: QkvLayout,
        eps: f32,
    ) -> FloatTensor<Self> {
        let [qkv, q_weight, k_weight] = [qkv, q_weight, k_weight].map(gpu::contiguous);
        let [tokens, width] = gpu::dims(&qkv);
        let y = gpu::empty(&qkv, [tokens, width]);
        if tokens > 0 {
            // SAFETY: the kernel stays inside `tokens` rows of the layout's heads.
            unsafe {
                qk_norm_kernel::launch_unchecked(
                    &qkv.client,
                    gpu::cubes(tokens * width / layout.head_dim),
                    CubeDim::new_1d(UNITS),
                    arg(&qkv),
                    arg(&q_weight),
                    arg(&k_weight),
                    arg(&y),
                    sizes(tokens, layout),
                    eps,
                );
            }
        }
        y
    }

    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn qk_norm_backward(
        qkv: FloatTensor<Self>,
        q_weight: FloatTensor<Self>,
        k_weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        layout: QkvLayout,
        eps: f32,
    ) -> FloatTensor<Self> {
        let [qkv, q_weight, k_weight, dy] = [qkv, q_weight, k_weight, dy].map(gpu::contiguous);
        let [tokens, width] = gpu::dims(&qkv);
        let d = gpu::empty(&qkv, [tokens, width]);
        if tokens > 0 {
            // SAFETY: the kernel stays inside `tokens` rows of the layout's heads.
            unsafe {
                qk_norm_backward_kernel::launch_unchecked(
                    &qkv.client,
                    gpu::cubes(tokens * width / layout.head_dim),
                    CubeDim::new_1d(UNITS),
                    arg(&qkv),
                    arg(&q_weight),
                    arg(&k_weight),
                    arg(&dy),
                    arg(&d),
                    sizes(tokens, layout),
                    eps,
                );
            }
        }
        d
    }
}

fn sizes(tokens: usize, layout: QkvLayout) -> SizesLaunch {
    let heads = layout.num_heads + 2 * layout.num_kv_heads;
    let [tokens, heads, queries, keys, head_dim] =
        [tokens, heads, layout.num_heads, layout.num_kv_heads, layout.head_dim].map(|size| size as u32);
    SizesLaunch::new(tokens, heads, queries, keys, head_dim)
}

/// Sizes that are known when a kernel is launched.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Sizes {
    tokens: u32,
    /// Heads of a row.
    heads: u32,
    queries: u32,
    keys: u32,
    head_dim: u32,
}

#[cube(launch_unchecked)]
fn qk_norm_kernel(qkv: &[f32], q_weight: &[f32], k_weight: &[f32], y: &mut [f32], sizes: Sizes, eps: f32) {
    let mut room = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let head_dim = sizes.head_dim as usize;
    let at = CUBE_POS * head_dim;
    let head = (CUBE_POS % sizes.heads as usize) as u32;
    if CUBE_POS < sizes.tokens as usize * sizes.heads as usize {
        if head < sizes.queries {
            normalise(qkv, q_weight, y, &mut room, at, head_dim, eps, UNITS);
        } else if head < sizes.queries + sizes.keys {
            normalise(qkv, k_weight, y, &mut room, at, head_dim, eps, UNITS);
        } else {
            copy(qkv, y, at, head_dim);
        }
    }
}

#[cube(launch_unchecked)]
fn qk_norm_backward_kernel(
    qkv: &[f32],
    q_weight: &[f32],
    k_weight: &[f32],
    dy: &[f32],
    d: &mut [f32],
    sizes: Sizes,
    eps: f32,
) {
    let mut room = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let head_dim = sizes.head_dim as usize;
    let at = CUBE_POS * head_dim;
    let head = (CUBE_POS % sizes.heads as usize) as u32;
    if CUBE_POS < sizes.tokens as usize * sizes.heads as usize {
        if head < sizes.queries {
            gradient(qkv, q_weight, dy, d, &mut room, at, head_dim, eps, UNITS);
        } else if head < sizes.queries + sizes.keys {
            gradient(qkv, k_weight, dy, d, &mut room, at, head_dim, eps, UNITS);
        } else {
            copy(dy, d, at, head_dim);
        }
    }
}

#[cube]
fn copy(from: &[f32], to: &mut [f32], at: usize, len: usize) {
    let turns = len.div_ceil(comptime!(UNITS as usize));
    for turn in 0..turns {
        let i = turn * comptime!(UNITS as usize) + UNIT_POS as usize;
        if i < len {
            to[at + i] = from[at + i];
        }
    }
}
