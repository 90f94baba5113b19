//! One pass over fixed chunks in parallel.

use rayon::prelude::*;

use super::Factors;

/// Elements that one task takes: fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 16_384;

/// Moves parameters and moments by one step.
pub(super) fn step(factors: &Factors, params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32]) {
    let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
    let tasks = params.par_chunks_mut(CHUNK).zip(grads.par_chunks(CHUNK)).zip(moments);
    tasks.for_each(|((params, grads), (m, v))| step_chunk(*factors, params, grads, m, v));
}

fn step_chunk(f: Factors, params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32]) {
    for (((p, g), m), v) in params.iter_mut().zip(grads).zip(m).zip(v) {
        // torch's `lerp_`, and `addcmul_` with the product from the left.
        *m += f.mean * (*g - *m);
        *v = *v * f.beta2 + f.square * g * g;
        let denominator = v.sqrt() / f.root_correction + f.eps;
        *p = *p * f.decay - f.step_size * (*m / denominator);
    }
}

/// Adds the squares of all elements: per chunk in f64, chunks and then tensors in order.
pub(super) fn sum_of_squares(grads: &[&[f32]]) -> f64 {
    let tensor = |grads: &&[f32]| -> f64 {
        let chunks: Vec<f64> = grads.par_chunks(CHUNK).map(chunk_squares).collect();
        chunks.iter().sum()
    };
    grads.iter().map(tensor).sum()
}

/// Adds the squares of a chunk in 8 lanes, which vectorises, and then in order.
fn chunk_squares(chunk: &[f32]) -> f64 {
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
