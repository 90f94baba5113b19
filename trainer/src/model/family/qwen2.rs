//! Qwen2 and Qwen2.5: biases on query, key and value, never on the output; a window for the upper blocks.
//!
//! Source: huggingface/transformers `models/qwen2/` (5.23.0).

use super::{Family, Rules, llama};
use crate::model::config_error::ConfigError;
use crate::model::fields::Fields;
use crate::model::spec::LayerSpec;

pub(super) const FAMILY: Family = Family { model_type: "qwen2", rules, tensor_name: llama::tensor_name };

const DEFAULT_WINDOW: usize = 4096;
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;

fn rules(fields: &Fields<'_>, num_layers: usize) -> Result<Rules, ConfigError> {
    Ok(Rules {
        qkv_bias: true,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        default_head_dim: None,
        kv_heads_optional: false,
        layers: layers(fields, num_layers)?,
    })
}

/// Windows of Qwen2 and Qwen3: `layer_types` where given, else every block from `max_window_layers` on,
/// and none at all unless `use_sliding_window` is true.
pub(super) fn layers(fields: &Fields<'_>, num_layers: usize) -> Result<Vec<LayerSpec>, ConfigError> {
    let window = if fields.flag("use_sliding_window", false)? {
        fields.size_or("sliding_window", Some(DEFAULT_WINDOW))?
    } else {
        None
    };
    if let Some(types) = fields.layer_types(num_layers)? {
        return Ok(types
            .into_iter()
            .map(|sliding| LayerSpec { window: window.filter(|_| sliding) })
            .collect());
    }
    let first = fields.count_or("max_window_layers", DEFAULT_MAX_WINDOW_LAYERS)?;
    Ok((0..num_layers).map(|layer| LayerSpec { window: window.filter(|_| layer >= first) }).collect())
}
