//! Architectures and the Hugging Face names of their tensors.
//!
//! Source: gguf-py 0.19.0 (MIT), `gguf/constants.py` (`TENSOR_NAMES`) and llama.cpp's `convert_hf_to_gguf.py`
//! (`LlamaModel.permute`).

use std::collections::BTreeMap;

use super::error::GgufError;
use super::metadata::{Metadata, required};
use super::reader::{Header, Tensor};
use crate::weights::plain::Rows;

/// A supported architecture; its name is also the prefix of its metadata keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Qwen2,
    Qwen3,
}

impl Family {
    pub(super) fn of(header: &Header, file: &[u8]) -> Result<Self, GgufError> {
        let key = "general.architecture";
        match required(key, Metadata::new(header, file).text(key)?)? {
            "llama" => Ok(Self::Llama),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            got => Err(GgufError::Architecture { got: got.to_owned() }),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// Frequencies of Llama 3's scaling: part of the configuration, not a weight.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

type Names = BTreeMap<String, (usize, Rows)>;

/// Gives each tensor its Hugging Face name.
pub(super) fn hugging_face(header: &Header, file: &[u8], family: Family) -> Result<Names, GgufError> {
    let mut names = BTreeMap::new();
    for (index, tensor) in header.tensors.iter().enumerate() {
        if tensor.name == ROPE_FREQS {
            continue;
        }
        let Some(name) = hf_name(&tensor.name) else {
            return Err(GgufError::TensorName { tensor: tensor.name.clone(), architecture: family.name() });
        };
        let rows = match (family, &tensor.name) {
            (Family::Llama, name) if name.contains(".attn_q.") => pairs(header, file, tensor, "head_count")?,
            (Family::Llama, name) if name.contains(".attn_k.") => {
                pairs(header, file, tensor, "head_count_kv")?
            }
            _ => Rows::Same,
        };
        if names.insert(name, (index, rows)).is_some() {
            return Err(GgufError::DuplicateTensor { tensor: tensor.name.clone() });
        }
    }
    Ok(names)
}

fn pairs(header: &Header, file: &[u8], tensor: &Tensor, key: &str) -> Result<Rows, GgufError> {
    let metadata = Metadata::new(header, file);
    let all_heads = "llama.attention.head_count";
    let heads = match metadata.uint(&format!("llama.attention.{key}"))? {
        Some(heads) => heads,
        None => required(all_heads, metadata.uint(all_heads)?)?,
    };
    let rows = tensor.shape.first().copied().unwrap_or(1);
    let per_head =
        usize::try_from(heads).ok().filter(|&heads| heads > 0 && rows % heads == 0).map(|heads| rows / heads);
    match per_head {
        Some(rows_per_head) if rows_per_head > 0 && rows_per_head % 2 == 0 => {
            Ok(Rows::Pairs { rows_per_head })
        }
        _ => Err(GgufError::Heads { tensor: tensor.name.clone(), rows, heads }),
    }
}

fn hf_name(name: &str) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.')?;
    if !matches!(kind, "weight" | "bias") {
        return None;
    }
    let Some(block) = stem.strip_prefix("blk.") else {
        let module = match stem {
            "token_embd" => "model.embed_tokens",
            "output_norm" => "model.norm",
            "output" => "lm_head",
            _ => return None,
        };
        return Some(format!("{module}.{kind}"));
    };
    let (layer, part) = block.split_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    let module = match part {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{module}.{kind}"))
}
