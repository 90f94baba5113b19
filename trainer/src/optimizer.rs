//! AdamW over all factors of an adapter, as `torch.optim.AdamW`, with clipping by the global norm: on the CPU, or on the
//! device that the adapter is on.

use std::borrow::Cow;

use burn::tensor::{Tensor, TensorData, Transaction};
use rayon::prelude::*;
use seedcorn_adapters::{Adapter, read_back};
use seedcorn_kernels::adamw::{self, AdamW, Stepped};

use crate::model::{Loss, Summed};

/// The optimizer and its moments.
#[derive(Clone, Debug)]
pub struct Optimizer {
    config: AdamW,
    /// Largest global gradient norm; 0 does not clip.
    max_grad_norm: f64,
    step: u64,
    moments: Moments,
}

/// First and second moments of every tensor, in the order of [`Adapter::values`].
#[derive(Clone, Debug)]
enum Moments {
    Here([Vec<Vec<f32>>; 2]),
    There([Vec<Tensor<2>>; 2]),
}

/// The mean over the trained tokens of a step.
#[derive(Debug)]
pub struct Mean {
    /// Of the loss.
    pub loss: f64,
    /// Global norm of the gradient, before any clipping.
    pub grad_norm: f64,
    /// The gradient; of a device's tensors the sum.
    gradients: Summed,
    /// What the gradient is multiplied by.
    scale: f32,
}

impl Mean {
    /// Divides what was summed over the tokens of a step, once. Of a device all that the host wants to know of a step is
    /// read here, at one time.
    ///
    /// # Panics
    /// When the device fails.
    pub fn of(loss: &Loss, gradients: Summed, trained_tokens: usize) -> Self {
        let scale = 1.0 / trained_tokens as f32;
        let tokens = trained_tokens as f64;
        match gradients {
            Summed::Here(mut values) => {
                values.par_iter_mut().for_each(|values| values.iter_mut().for_each(|value| *value *= scale));
                let views: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
                let grad_norm = adamw::global_norm(&views);
                let loss = loss.clone().value() / tokens;
                Self { loss, grad_norm, gradients: Summed::Here(values), scale: 1.0 }
            }
            Summed::There(tensors) => {
                let sums = tensors.iter().map(|tensor| adamw::sums_of_squares(tensor.clone(), scale));
                let reads = sums.fold(loss.register(Transaction::default()), Transaction::register);
                let read = reads.execute();
                let mut values = read.iter().flat_map(TensorData::iter::<f32>);
                let loss = loss.with(&mut || values.next().expect("one value a loss")) / tokens;
                let squares: f64 = values.map(f64::from).sum();
                Self { loss, grad_norm: squares.sqrt(), gradients: Summed::There(tensors), scale }
            }
        }
    }
}

impl Optimizer {
    /// Starts with zero moments for every tensor of the adapter, where the adapter is.
    pub fn new(config: AdamW, max_grad_norm: f64, adapter: &Adapter) -> Self {
        let moments = match adapter.away() {
            None => {
                let zeros: Vec<Vec<f32>> = adapter.lengths().into_iter().map(|len| vec![0.0; len]).collect();
                Moments::Here([zeros.clone(), zeros])
            }
            Some(device) => {
                let zeros = || adapter.shapes().into_iter().map(|shape| Tensor::zeros(shape, &device));
                Moments::There([zeros().collect(), zeros().collect()])
            }
        };
        Self { config, max_grad_norm, step: 0, moments }
    }

    /// Goes on from saved moments, those of [`Optimizer::moments`].
    ///
    /// # Panics
    /// When the moments are of another adapter.
    pub fn restore(&mut self, step: u64, saved: [Vec<Vec<f32>>; 2]) {
        self.step = step;
        match &mut self.moments {
            Moments::Here(moments) => {
                for (moments, saved) in moments.iter().zip(&saved) {
                    let sizes = |tensors: &[Vec<f32>]| tensors.iter().map(Vec::len).collect::<Vec<_>>();
                    assert_eq!(sizes(saved), sizes(moments), "moments of another adapter");
                }
                *moments = saved;
            }
            Moments::There(moments) => {
                for (moments, saved) in moments.iter_mut().zip(saved) {
                    assert_eq!(saved.len(), moments.len(), "moments of another adapter");
                    for (moment, values) in moments.iter_mut().zip(saved) {
                        let data = TensorData::new(values, moment.dims());
                        *moment = Tensor::from_data(data, &moment.device());
                    }
                }
            }
        }
    }

    /// Returns the first and second moments, in the order of [`Adapter::values`]; those of a device are read back.
    pub fn moments(&self) -> [Cow<'_, [Vec<f32>]>; 2] {
        match &self.moments {
            Moments::Here(moments) => moments.each_ref().map(|moments| Cow::Borrowed(moments.as_slice())),
            Moments::There(moments) => {
                moments.each_ref().map(|moments| Cow::Owned(read_back(moments.iter())))
            }
        }
    }

    /// Clips the gradients to the largest norm and applies one update at learning rate `lr`.
    ///
    /// # Panics
    /// When gradients and adapter are not in one place.
    pub fn update(&mut self, adapter: &mut Adapter, mean: Mean, lr: f64) {
        let Mean { grad_norm, gradients, scale, .. } = mean;
        let clips = self.max_grad_norm > 0.0;
        let clip = if clips { adamw::clip_scale(grad_norm, self.max_grad_norm) as f32 } else { 1.0 };
        self.step += 1;
        match (&mut self.moments, gradients) {
            (Moments::Here([first, second]), Summed::Here(gradients)) => adapter.change_values(|values| {
                let moments = first.iter_mut().zip(second);
                let tensors = values.iter_mut().zip(&gradients).zip(moments);
                let tensors = tensors.map(|((params, grads), (m, v))| Stepped { params, grads, m, v });
                self.config.step_all(tensors.collect(), clip, self.step, lr);
            }),
            (Moments::There([first, second]), Summed::There(gradients)) => {
                let mut rest = gradients.into_iter().zip(first.iter_mut().zip(second));
                adapter.change_tensors(|params| {
                    let (gradient, (m, v)) = rest.next().expect("a gradient for each tensor");
                    let state = [params, m.clone(), v.clone()];
                    let [params, first, second] =
                        self.config.step_tensor(state, gradient, [scale, clip], self.step, lr);
                    (*m, *v) = (first, second);
                    params
                });
            }
            _ => unreachable!("gradients are where the adapter is"),
        }
    }
}
