//! One pass over fixed chunks of all tensors in parallel.

use rayon::prelude::*;

use super::{CHUNK, Factors, Stepped};
use crate::isa::{Tier, tiered};

/// Moves parameters and moments by one step.
pub(super) fn step(tier: Tier, factors: &Factors, grad_scale: f32, tensors: Vec<Stepped>) {
    tensors.into_par_iter().for_each(|Stepped { params, grads, m, v }| {
        let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
        let tasks = params.par_chunks_mut(CHUNK).zip(grads.par_chunks(CHUNK)).zip(moments);
        tasks.for_each(|((params, grads), (m, v))| {
            step_chunk(tier, factors, grad_scale, params, grads, m, v);
        });
    });
}

tiered! {
    fn step_chunk(
        f: &Factors, grad_scale: f32, params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32],
    ) = step_body;
}

#[inline(always)]
fn step_body<const FMA: bool, const WIDTH: usize>(
    f: &Factors,
    grad_scale: f32,
    params: &mut [f32],
    grads: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let f = *f;
    for (((p, g), m), v) in params.iter_mut().zip(grads).zip(m).zip(v) {
        let g = g * grad_scale;
        // torch's `lerp_`, and `addcmul_` with the product from the left.
        *m += f.mean * (g - *m);
        *v = *v * f.beta2 + f.square * g * g;
        let denominator = v.sqrt() / f.root_correction + f.eps;
        *p = *p * f.decay - f.step_size * (*m / denominator);
    }
}

/// Adds the squares of all elements: per chunk in f64, chunks and then tensors in order.
pub(super) fn sum_of_squares(tier: Tier, grads: &[&[f32]]) -> f64 {
    let tensor = |grads: &&[f32]| -> f64 {
        let chunks: Vec<f64> = grads.par_chunks(CHUNK).map(|chunk| chunk_squares(tier, chunk)).collect();
        chunks.iter().sum()
    };
    let tensors: Vec<f64> = grads.par_iter().map(tensor).collect();
    tensors.iter().sum()
}

tiered! {
    /// Adds the squares of a chunk in 8 lanes, which vectorises, and then in order. A product of two f32 is exact in
    /// f64, so it does not matter whether a tier fuses.
    fn chunk_squares(chunk: &[f32]) -> f64 = squares_body;
}

#[inline(always)]
fn squares_body<const FMA: bool, const WIDTH: usize>(chunk: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (chunks, rest) = chunk.as_chunks::<8>();
    for chunk in chunks {
        for (sum, g) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*g) * f64::from(*g);
        }
    }
    for (sum, g) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*g) * f64::from(*g);
    }
    sums.iter().sum()
}
