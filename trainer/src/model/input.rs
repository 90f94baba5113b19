//! What a forward pass reads besides the weights.

use std::sync::Arc;

use seedcorn_adapters::{Adapter, DropoutPlan, Projection};
use seedcorn_data::MicroBatch;
use seedcorn_kernels::lora_linear::Part;

/// The tokens of a forward pass: segments one after another, no padding.
#[derive(Clone, Debug)]
pub struct Input {
    /// `[tokens]`.
    pub input_ids: Arc<[u32]>,
    /// `[tokens]`, restarting at 0 in each segment.
    pub positions: Arc<[u32]>,
    /// `[segments + 1]`, cumulative ends with a leading 0.
    pub segments: Arc<[u32]>,
    /// `[tokens]`, the id that should come next; negative where nothing is trained.
    pub targets: Arc<[i32]>,
}

impl From<&MicroBatch> for Input {
    fn from(batch: &MicroBatch) -> Self {
        Self {
            input_ids: batch.input_ids.as_slice().into(),
            positions: batch.positions.as_slice().into(),
            segments: batch.segments.as_slice().into(),
            targets: batch.targets.as_slice().into(),
        }
    }
}

/// Which adapter a forward pass goes through, and how.
#[derive(Clone, Copy, Debug)]
pub struct Adapted<'a> {
    /// The adapter; none means the base model.
    pub adapter: Option<&'a Adapter>,
    /// Dropout of the adapters' inputs, in training.
    pub dropout: Option<DropoutPlan>,
    /// Whether the factors are leaves that gradients are taken of.
    pub tracked: bool,
}

impl<'a> Adapted<'a> {
    /// The base model alone.
    pub const BASE: Self = Self { adapter: None, dropout: None, tracked: false };

    /// Evaluation: the adapter as it is, without dropout or gradients.
    pub fn evaluated(adapter: Option<&'a Adapter>) -> Self {
        Self { adapter, ..Self::BASE }
    }

    /// Joins projections with their factors. `leaves` receives the place of every tracked module and its part.
    pub(super) fn parts(&self, projections: &[&Projection], leaves: &mut Vec<(usize, Part)>) -> Vec<Part> {
        projections
            .iter()
            .map(|projection| {
                let mut part =
                    Part { weight: projection.weight.clone(), bias: projection.bias.clone(), factors: None };
                let place =
                    self.adapter.and_then(|adapter| Some((adapter, adapter.place(&projection.name)?)));
                if let Some((adapter, place)) = place {
                    let dropout = self.dropout.and_then(|plan| plan.of_module(place));
                    let module = &adapter.modules()[place];
                    if self.tracked {
                        part.factors = Some(module.tracked_factors(projection.part.as_ref(), dropout));
                        leaves.push((place, part.clone()));
                    } else {
                        part.factors = Some(module.factors(projection.part.as_ref(), dropout));
                    }
                }
                part
            })
            .collect()
    }
}
