//! The op as CubeCL kernels: a cube takes a row.
//!
//! Bytes: forward reads `x` twice (the second time from a cache) and writes `y`; backward reads `x` and `dy` twice.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::RmsNormBackend;
use crate::gpu::number::cube_sum;
use crate::gpu::{self, arg};

/// Units of a cube: a power of two.
const UNITS: u32 = 64;

impl RmsNormBackend for CubeBackend {
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let (x, weight) = (gpu::contiguous(x), gpu::contiguous(weight));
        let [rows, width] = gpu::dims(&x);
        let y = gpu::empty(&x, [rows, width]);
        if rows * width > 0 {
            let (count, dim) = (gpu::cubes(rows), CubeDim::new_1d(UNITS));
            // SAFETY: the kernel stays inside `rows` rows of `width`.
            unsafe {
                rms_norm_kernel::launch_unchecked(
                    &x.client,
                    count,
                    dim,
                    arg(&x),
                    arg(&weight),
                    arg(&y),
                    rows as u32,
                    width as u32,
                    eps,
                );
            }
        }
        y
    }

    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let [x, weight, dy] = [x, weight, dy].map(gpu::contiguous);
        let [rows, width] = gpu::dims(&x);
        let dx = gpu::empty(&x, [rows, width]);
        if rows * width > 0 {
            let (count, dim) = (gpu::cubes(rows), CubeDim::new_1d(UNITS));
            let sizes = (rows as u32, width as u32);
            // SAFETY: the kernel stays inside `rows` rows of `width`.
            unsafe {
                rms_norm_backward_kernel::launch_unchecked(
                    &x.client,
                    count,
                    dim,
                    arg(&x),
                    arg(&weight),
                    arg(&dy),
                    arg(&dx),
                    sizes.0,
                    sizes.1,
                    eps,
                );
            }
        }
        dx
    }
}

#[cube(launch_unchecked)]
fn rms_norm_kernel(x: &[f32], weight: &[f32], y: &mut [f32], rows: u32, width: u32, eps: f32) {
    let row = CUBE_POS;
    let mut room = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    if row < rows as usize {
        normalise(x, weight, y, &mut room, row * width as usize, width as usize, eps, UNITS);
    }
}

#[cube(launch_unchecked)]
fn rms_norm_backward_kernel(
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    rows: u32,
    width: u32,
    eps: f32,
) {
    let row = CUBE_POS;
    let mut room = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    if row < rows as usize {
        gradient(x, weight, dy, dx, &mut room, row * width as usize, width as usize, eps, UNITS);
    }
}

/// Normalises the `width` elements from `at` on, all units of a cube together.
#[cube]
pub(crate) fn normalise(
    x: &[f32],
    weight: &[f32],
    y: &mut [f32],
    room: &mut Shared<[f32]>,
    at: usize,
    width: usize,
    eps: f32,
    #[comptime] units: u32,
) {
    let unit = UNIT_POS as usize;
    let turns = width.div_ceil(comptime!(units as usize));
    let mut squares = 0.0f32;
    for turn in 0..turns {
        let i = turn * comptime!(units as usize) + unit;
        if i < width {
            squares += x[at + i] * x[at + i];
        }
    }
    let inverse = 1.0f32 / (cube_sum(squares, room, units) / width as f32 + eps).sqrt();
    for turn in 0..turns {
        let i = turn * comptime!(units as usize) + unit;
        if i < width {
            y[at + i] = x[at + i] * inverse * weight[i];
        }
    }
}

/// The gradient of [`normalise`]: the formula is derived in `backward.rs`.
#[cube]
pub(crate) fn gradient(
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    room: &mut Shared<[f32]>,
    at: usize,
    width: usize,
    eps: f32,
    #[comptime] units: u32,
) {
    let unit = UNIT_POS as usize;
    let turns = width.div_ceil(comptime!(units as usize));
    let mut squares = 0.0f32;
    let mut products = 0.0f32;
    for turn in 0..turns {
        let i = turn * comptime!(units as usize) + unit;
        if i < width {
            squares += x[at + i] * x[at + i];
            products += weight[i] * dy[at + i] * x[at + i];
        }
    }
    let inverse = 1.0f32 / (cube_sum(squares, room, units) / width as f32 + eps).sqrt();
    // Two factors of `inverse` each side of the sum keep huge rows inside f32's range.
    let along = cube_sum(products, room, units) * inverse / width as f32 * inverse;
    for turn in 0..turns {
        let i = turn * comptime!(units as usize) + unit;
        if i < width {
            dx[at + i] = inverse * (weight[i] * dy[at + i] - x[at + i] * along);
        }
    }
}
