//! Mistral: no biases, one sliding window for all blocks.
//!
//! Source: huggingface/transformers `models/mistral/` (5.23.0), where an absent `sliding_window` means 4096
//! and `null` means none.

use super::{Family, Rules, llama, uniform};
use crate::model::config_error::ConfigError;
use crate::model::fields::Fields;

pub(super) const FAMILY: Family = Family { model_type: "mistral", rules, tensor_name: llama::tensor_name };

const DEFAULT_WINDOW: usize = 4096;

fn rules(fields: &Fields<'_>, num_layers: usize) -> Result<Rules, ConfigError> {
    let window = fields.size_or("sliding_window", Some(DEFAULT_WINDOW))?;
    Ok(Rules {
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        default_head_dim: None,
        kv_heads_optional: false,
        layers: uniform(window, num_layers),
    })
}
