//! The step as a CubeCL kernel: a unit takes an element; and sums of squares, a cube a chunk.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::{AdamWBackend, CHUNK, Factors};
use crate::gpu::number::cube_sum;
use crate::gpu::{self, arg};

/// Units of a cube: a power of two.
const UNITS: u32 = 64;

impl AdamWBackend for CubeBackend {
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn adamw_step(
        params: FloatTensor<Self>,
        grads: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        factors: Factors,
        scales: [f32; 2],
    ) -> Vec<FloatTensor<Self>> {
        let [params, grads, m, v] = [params, grads, m, v].map(gpu::contiguous);
        let shape = gpu::dims(&params);
        let new = [(); 3].map(|()| gpu::empty(&params, shape));
        let len = shape[0] * shape[1];
        let Factors { decay, mean, beta2, square, root_correction, eps, step_size } = factors;
        let numbers = NumbersLaunch::new(
            scales[0],
            scales[1],
            decay,
            mean,
            beta2,
            square,
            root_correction,
            eps,
            step_size,
        );
        if len > 0 {
            // SAFETY: all seven have `len` elements, and the kernel stays inside them.
            unsafe {
                step_kernel::launch_unchecked(
                    &params.client,
                    gpu::cubes(len.div_ceil(UNITS as usize)),
                    CubeDim::new_1d(UNITS),
                    arg(&params),
                    arg(&grads),
                    arg(&m),
                    arg(&v),
                    arg(&new[0]),
                    arg(&new[1]),
                    arg(&new[2]),
                    len as u32,
                    numbers,
                );
            }
        }
        new.into()
    }

    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn sums_of_squares(values: FloatTensor<Self>, scale: f32) -> FloatTensor<Self> {
        let values = gpu::contiguous(values);
        let len = gpu::dims(&values).iter().product::<usize>();
        let chunks = len.div_ceil(CHUNK);
        let sums = gpu::empty_vector(&values, chunks);
        if chunks > 0 {
            // SAFETY: the kernel stays inside `len` elements and so many chunks.
            unsafe {
                squares_kernel::launch_unchecked(
                    &values.client,
                    gpu::cubes(chunks),
                    CubeDim::new_1d(UNITS),
                    arg(&values),
                    arg(&sums),
                    len as u32,
                    scale,
                );
            }
        }
        sums
    }
}

/// [`Factors`], and what gradients are multiplied by, one factor after the other.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Numbers {
    mean_scale: f32,
    clip_scale: f32,
    decay: f32,
    mean: f32,
    beta2: f32,
    square: f32,
    root_correction: f32,
    eps: f32,
    step_size: f32,
}

#[cube(launch_unchecked)]
fn step_kernel(
    params: &[f32],
    grads: &[f32],
    m: &[f32],
    v: &[f32],
    new_params: &mut [f32],
    new_m: &mut [f32],
    new_v: &mut [f32],
    len: u32,
    numbers: Numbers,
) {
    if ABSOLUTE_POS < len as usize {
        let g = grads[ABSOLUTE_POS] * numbers.mean_scale * numbers.clip_scale;
        let mean = m[ABSOLUTE_POS] + numbers.mean * (g - m[ABSOLUTE_POS]);
        let square = v[ABSOLUTE_POS] * numbers.beta2 + numbers.square * g * g;
        let denominator = square.sqrt() / numbers.root_correction + numbers.eps;
        new_params[ABSOLUTE_POS] =
            params[ABSOLUTE_POS] * numbers.decay - numbers.step_size * (mean / denominator);
        new_m[ABSOLUTE_POS] = mean;
        new_v[ABSOLUTE_POS] = square;
    }
}

#[cube(launch_unchecked)]
fn squares_kernel(values: &[f32], sums: &mut [f32], len: u32, scale: f32) {
    let mut room = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let first = CUBE_POS * CHUNK;
    let mut sum = 0.0f32;
    if first < len as usize {
        for turn in 0..comptime!(CHUNK / UNITS as usize) {
            let at = first + turn * comptime!(UNITS as usize) + UNIT_POS as usize;
            if at < len as usize {
                let value = values[at] * scale;
                sum += value * value;
            }
        }
    }
    let sum = cube_sum(sum, &mut room, UNITS);
    if UNIT_POS == 0 && first < len as usize {
        sums[CUBE_POS] = sum;
    }
}
