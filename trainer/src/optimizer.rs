//! AdamW over all factors of an adapter, as `torch.optim.AdamW`, with clipping by the global norm.

use seedcorn_adapters::Adapter;
use seedcorn_kernels::adamw::{self, AdamW, Stepped};

/// The optimizer and its moments.
#[derive(Clone, Debug)]
pub struct Optimizer {
    config: AdamW,
    /// Largest global gradient norm; 0 does not clip.
    max_grad_norm: f64,
    step: u64,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
}

impl Optimizer {
    /// Starts with zero moments for every tensor of the adapter.
    pub fn new(config: AdamW, max_grad_norm: f64, adapter: &Adapter) -> Self {
        let zeros: Vec<Vec<f32>> = adapter.values().iter().map(|values| vec![0.0; values.len()]).collect();
        Self { config, max_grad_norm, step: 0, first: zeros.clone(), second: zeros }
    }

    /// Goes on from saved moments, those of [`Optimizer::moments`].
    ///
    /// # Panics
    /// When the moments are of another adapter.
    pub fn restore(&mut self, step: u64, [first, second]: [Vec<Vec<f32>>; 2]) {
        let sizes = |tensors: &[Vec<f32>]| tensors.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&first), sizes(&self.first), "moments of another adapter");
        assert_eq!(sizes(&second), sizes(&self.second), "moments of another adapter");
        (self.step, self.first, self.second) = (step, first, second);
    }

    /// Returns the first and second moments, in the order of [`Adapter::values`].
    pub fn moments(&self) -> [&[Vec<f32>]; 2] {
        [&self.first, &self.second]
    }

    /// Returns the global norm of gradients, before any clipping.
    pub fn global_norm(grads: &[Vec<f32>]) -> f64 {
        let views: Vec<&[f32]> = grads.iter().map(Vec::as_slice).collect();
        adamw::global_norm(&views)
    }

    /// Clips the gradients to the largest norm and applies one update at learning rate `lr`.
    pub fn update(&mut self, adapter: &mut Adapter, grads: &[Vec<f32>], grad_norm: f64, lr: f64) {
        let clip = self.max_grad_norm > 0.0;
        let scale = if clip { adamw::clip_scale(grad_norm, self.max_grad_norm) as f32 } else { 1.0 };
        self.step += 1;
        adapter.change_values(|values| {
            let moments = self.first.iter_mut().zip(&mut self.second);
            let tensors = values.iter_mut().zip(grads).zip(moments);
            let tensors = tensors.map(|((params, grads), (m, v))| Stepped { params, grads, m, v });
            self.config.step_all(tensors.collect(), scale, self.step, lr);
        });
    }
}
