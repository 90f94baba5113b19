//! Llama and the many models that kept its type (SmolLM2, TinyLlama, Yi): optional biases, no window.
//!
//! Source: huggingface/transformers `models/llama/` (5.23.0).

use super::{Family, LayerParam, Linear, Param, Rules, uniform};
use crate::model::config_error::ConfigError;
use crate::model::fields::Fields;

pub(super) const FAMILY: Family = Family { model_type: "llama", rules, tensor_name };

fn rules(fields: &Fields<'_>, num_layers: usize) -> Result<Rules, ConfigError> {
    let attention_bias = fields.flag("attention_bias", false)?;
    Ok(Rules {
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        mlp_bias: fields.flag("mlp_bias", false)?,
        qk_norm: false,
        default_head_dim: None,
        kv_heads_optional: true,
        layers: uniform(None, num_layers),
    })
}

/// The layout that Mistral, Qwen2 and Qwen3 share with Llama.
pub(super) fn tensor_name(param: Param) -> String {
    match param {
        Param::Embed => "model.embed_tokens.weight".to_owned(),
        Param::FinalNorm => "model.norm.weight".to_owned(),
        Param::LmHead => "lm_head.weight".to_owned(),
        Param::Layer(layer, param) => {
            let rest = match param {
                LayerParam::AttnNorm => "input_layernorm.weight".to_owned(),
                LayerParam::MlpNorm => "post_attention_layernorm.weight".to_owned(),
                LayerParam::QNorm => "self_attn.q_norm.weight".to_owned(),
                LayerParam::KNorm => "self_attn.k_norm.weight".to_owned(),
                LayerParam::Weight(linear) => format!("{}.weight", module(linear)),
                LayerParam::Bias(linear) => format!("{}.bias", module(linear)),
            };
            format!("model.layers.{layer}.{rest}")
        }
    }
}

fn module(linear: Linear) -> &'static str {
    match linear {
        Linear::Q => "self_attn.q_proj",
        Linear::K => "self_attn.k_proj",
        Linear::V => "self_attn.v_proj",
        Linear::O => "self_attn.o_proj",
        Linear::Gate => "mlp.gate_proj",
        Linear::Up => "mlp.up_proj",
        Linear::Down => "mlp.down_proj",
    }
}
