//! AdamW on plain slices, exactly as `torch.optim.AdamW`, and clipping by the global norm.
//!
//! For step `k = 1, 2, ..`: `p *= 1 - lr wd`; `m = b1 m + (1 - b1) g`; `v = b2 v + (1 - b2) g^2`;
//! `p -= lr / (1 - b1^k) * m / (sqrt(v) / sqrt(1 - b2^k) + eps)`. Bias corrections are f64, elements f32.
//! All tensors of an adapter are stepped in one pass of parallel chunks: 28 bytes a parameter, which is the limit.
//! There is no multiply-add that a tier could fuse, so every tier has the same bits.
//!
//! # Source
//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019,
//! <https://arxiv.org/abs/1711.05101>; `_single_tensor_adamw` and `clip_grad_norm_` in PyTorch.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::isa;

/// Hyperparameters; the learning rate comes with each step, from the schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the squared mean.
    pub eps: f64,
    /// Fraction of a parameter that `lr = 1` would take away each step.
    pub weight_decay: f64,
}

impl Default for AdamW {
    /// PyTorch's defaults.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamW {
    /// Moves `params` against `grads` and the moments `m`, `v` along with them; `step` counts from 1.
    ///
    /// # Panics
    /// If the slices differ in length, or `step` is 0.
    pub fn step(self, params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32], step: u64, lr: f64) {
        self.step_all(vec![Stepped { params, grads, m, v }], 1.0, step, lr);
    }

    /// Moves all tensors in one pass; gradients count `grad_scale` times (what [`clip_scale`] returns).
    ///
    /// # Panics
    /// If the slices of a tensor differ in length, or `step` is 0.
    pub fn step_all(self, tensors: Vec<Stepped>, grad_scale: f32, step: u64, lr: f64) {
        for Stepped { params, grads, m, v } in &tensors {
            let lengths = [grads.len(), m.len(), v.len()];
            let expected = [params.len(); 3];
            assert_eq!(lengths, expected, "`adamw`: lengths of gradient and moments against parameters");
        }
        assert!(step > 0, "`adamw`: steps count from 1");
        cpu::step(isa::tier(), &self.factors(step, lr), grad_scale, tensors);
    }

    fn factors(self, step: u64, lr: f64) -> Factors {
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        Factors {
            decay: (1.0 - lr * self.weight_decay) as f32,
            mean: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            square: (1.0 - self.beta2) as f32,
            root_correction: correction(self.beta2).sqrt() as f32,
            eps: self.eps as f32,
            step_size: (lr / correction(self.beta1)) as f32,
        }
    }
}

/// A tensor that moves, with what moves it.
#[derive(Debug)]
pub struct Stepped<'a> {
    /// Parameters.
    pub params: &'a mut [f32],
    /// Their gradient.
    pub grads: &'a [f32],
    /// Mean of gradients.
    pub m: &'a mut [f32],
    /// Mean of squared gradients.
    pub v: &'a mut [f32],
}

/// What one step multiplies with, computed in f64 and rounded once.
#[derive(Debug, Clone, Copy)]
struct Factors {
    decay: f32,
    mean: f32,
    beta2: f32,
    square: f32,
    root_correction: f32,
    eps: f32,
    step_size: f32,
}

/// Computes the 2-norm over all elements of all tensors.
///
/// # Numerics
/// f64 in fixed chunks, added up in order: the same bits for any number of threads. NaN or infinity in a
/// gradient gives NaN or infinity.
pub fn global_norm(grads: &[&[f32]]) -> f64 {
    cpu::sum_of_squares(isa::tier(), grads).sqrt()
}

/// Returns the factor that brings a gradient of norm `norm` to at most `max_norm`, as torch's
/// `clip_grad_norm_`: `min(1, max_norm / (norm + 1e-6))`; NaN for a NaN norm.
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    let scale = max_norm / (norm + 1e-6);
    if scale > 1.0 { 1.0 } else { scale }
}
