//! What stands in a model where a linear layer stood.

use std::sync::Arc;

use seedcorn_kernels::frozen::FrozenWeight;
use seedcorn_kernels::section::Section;

/// A frozen linear layer that an adapter may sit on.
///
/// The trained factors live in [`crate::Adapter`] under the same name: adapting a model is a value handed to
/// the forward pass, never a change of the model.
#[derive(Clone, Debug)]
pub struct Projection {
    /// Module path, such as `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// `[out, in]`.
    pub weight: FrozenWeight,
    /// `[out]`.
    pub bias: Option<Arc<[f32]>>,
    /// Which part of the layer this is; none where it is whole.
    pub part: Option<Section>,
}
