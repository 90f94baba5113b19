//! AdamW on plain slices, exactly as `torch.optim.AdamW`, and clipping by the global norm.
//!
//! For step `k = 1, 2, ..`: `p *= 1 - lr wd`; `m = b1 m + (1 - b1) g`; `v = b2 v + (1 - b2) g^2`;
//! `p -= lr / (1 - b1^k) * m / (sqrt(v) / sqrt(1 - b2^k) + eps)`. Bias corrections are f64, elements f32.
//! All tensors of an adapter are stepped in one pass of parallel chunks: 28 bytes a parameter, which is the limit.
//! There is no multiply-add that a tier could fuse, so every tier has the same bits. What is on a device is stepped there,
//! one tensor after another; a device may fuse and divides its own way, so it has other bits than the CPU.
//!
//! # Source
//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019,
//! <https://arxiv.org/abs/1711.05101>; `_single_tensor_adamw` and `clip_grad_norm_` in PyTorch.

mod cpu;
#[cfg(feature = "cube")]
mod cubecl;
pub mod reference;
#[cfg(test)]
mod tests;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::{flex, isa};

/// Elements of which one sum of squares is made: fixed, so that sums do not depend on who adds them.
const CHUNK: usize = 16_384;

/// Backends that have the op on tensors; call [`AdamW::step_tensor`] and [`sums_of_squares`] instead.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cube"))]
pub trait AdamWBackend: Backend {
    /// Returns parameters and both moments after a step.
    fn adamw_step(
        params: FloatTensor<Self>,
        grads: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        factors: Factors,
        scales: [f32; 2],
    ) -> Vec<FloatTensor<Self>>;
    /// See [`sums_of_squares`].
    fn sums_of_squares(values: FloatTensor<Self>, scale: f32) -> FloatTensor<Self>;
}

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

    /// As [`AdamW::step`], of tensors where they are: takes and returns parameters, `m` and `v`. Gradients count
    /// `scales[0]` times, and that `scales[1]` times. The tensors are on an inner device.
    ///
    /// # Panics
    /// If the shapes differ, or `step` is 0.
    pub fn step_tensor(
        self,
        [params, m, v]: [Tensor<2>; 3],
        grads: Tensor<2>,
        scales: [f32; 2],
        step: u64,
        lr: f64,
    ) -> [Tensor<2>; 3] {
        let shapes = [grads.dims(), m.dims(), v.dims()];
        assert_eq!(shapes, [params.dims(); 3], "`adamw`: shapes of gradient and moments against parameters");
        assert!(step > 0, "`adamw`: steps count from 1");
        let [params, grads, m, v] = [params, grads, m, v].map(Tensor::into_dispatch);
        let moved = Dispatch::adamw_step(params, grads, m, v, self.factors(step, lr), scales);
        let moved: Vec<Tensor<2>> = moved.into_iter().map(Tensor::from_dispatch).collect();
        moved.try_into().expect("parameters and two moments")
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
pub struct Factors {
    decay: f32,
    mean: f32,
    beta2: f32,
    square: f32,
    root_correction: f32,
    eps: f32,
    step_size: f32,
}

/// Adds the squares of `scale` times each value, for every 16384 elements: `[ceil(n / 16384)]`, where the values are.
///
/// # Numerics
/// f32, in a tree on a device: a sum above 3e38 is infinity.
pub fn sums_of_squares(values: Tensor<2>, scale: f32) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::sums_of_squares(values.into_dispatch(), scale))
}

impl AdamWBackend for Flex {
    fn adamw_step(
        params: FloatTensor<Self>,
        grads: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        factors: Factors,
        scales: [f32; 2],
    ) -> Vec<FloatTensor<Self>> {
        let [mut params, mut grads, mut m, mut v] = [params, grads, m, v].map(flex::contiguous);
        for value in flex::slice_mut(&mut grads) {
            *value *= scales[0];
        }
        let stepped = Stepped {
            params: flex::slice_mut(&mut params),
            grads: flex::slice(&grads),
            m: flex::slice_mut(&mut m),
            v: flex::slice_mut(&mut v),
        };
        cpu::step(isa::tier(), &factors, scales[1], vec![stepped]);
        vec![params, m, v]
    }

    fn sums_of_squares(values: FloatTensor<Self>, scale: f32) -> FloatTensor<Self> {
        let values = flex::contiguous(values);
        let chunks = flex::slice(&values).chunks(CHUNK);
        let squares = |chunk: &[f32]| -> f64 {
            chunk.iter().map(|value| f64::from(value * scale)).map(|value| value * value).sum()
        };
        let sums: Vec<f32> = chunks.map(|chunk| squares(chunk) as f32).collect();
        let len = sums.len();
        flex::tensor(sums, [len])
    }
}

impl<B: AdamWBackend, C: CheckpointStrategy> AdamWBackend for Autodiff<B, C> {
    fn adamw_step(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Factors,
        _: [f32; 2],
    ) -> Vec<FloatTensor<Self>> {
        unreachable!("the step is made on the inner backend")
    }

    fn sums_of_squares(_: FloatTensor<Self>, _: f32) -> FloatTensor<Self> {
        unreachable!("the step is made on the inner backend")
    }
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
