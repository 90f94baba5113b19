//! Qwen3 (dense): norms on queries and keys, biases by flag, a head width of its own.
//!
//! Source: huggingface/transformers `models/qwen3/` (5.23.0), where an absent `head_dim` means 128.

use super::{Family, Rules, llama, qwen2};
use crate::model::config_error::ConfigError;
use crate::model::fields::Fields;

pub(super) const FAMILY: Family = Family { model_type: "qwen3", rules, tensor_name: llama::tensor_name };

const DEFAULT_HEAD_DIM: usize = 128;

fn rules(fields: &Fields<'_>, num_layers: usize) -> Result<Rules, ConfigError> {
    let attention_bias = fields.flag("attention_bias", false)?;
    Ok(Rules {
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        mlp_bias: false,
        qk_norm: true,
        default_head_dim: Some(DEFAULT_HEAD_DIM),
        kv_heads_optional: false,
        layers: qwen2::layers(fields, num_layers)?,
    })
}
