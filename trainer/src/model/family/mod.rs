//! Model families: one file each, from the keys of `config.json` to the differences between families, and
//! from parameters to Hugging Face tensor names.

mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use super::config_error::ConfigError;
use super::fields::Fields;
use super::spec::LayerSpec;

/// What a family decides; the rest of `config.json` reads the same everywhere.
pub(super) struct Rules {
    pub(super) qkv_bias: bool,
    pub(super) o_bias: bool,
    pub(super) mlp_bias: bool,
    pub(super) qk_norm: bool,
    /// Head width when the key is absent; `None` means `hidden_size / num_attention_heads`.
    pub(super) default_head_dim: Option<usize>,
    /// An absent `num_key_value_heads` means one per query head (elsewhere the key is required).
    pub(super) kv_heads_optional: bool,
    pub(super) layers: Vec<LayerSpec>,
}

/// A family: its name in `config.json`, its rules and its tensor names.
struct Family {
    model_type: &'static str,
    rules: fn(&Fields<'_>, usize) -> Result<Rules, ConfigError>,
    tensor_name: fn(Param) -> String,
}

const FAMILIES: [Family; 4] = [llama::FAMILY, mistral::FAMILY, qwen2::FAMILY, qwen3::FAMILY];

/// Values of `model_type` that can be read.
pub const SUPPORTED: [&str; 4] =
    [FAMILIES[0].model_type, FAMILIES[1].model_type, FAMILIES[2].model_type, FAMILIES[3].model_type];

/// The linear layers of a decoder block, in forward order.
pub const LINEARS: [Linear; 7] =
    [Linear::Q, Linear::K, Linear::V, Linear::O, Linear::Gate, Linear::Up, Linear::Down];

/// A linear layer of a decoder block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Linear {
    /// Query projection.
    Q,
    /// Key projection.
    K,
    /// Value projection.
    V,
    /// Attention output projection.
    O,
    /// Gate of the feed-forward layer.
    Gate,
    /// Up projection of the feed-forward layer.
    Up,
    /// Down projection of the feed-forward layer.
    Down,
}

impl Linear {
    /// Returns the last part of the layer's name, which all families share.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }
}

/// A parameter of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Param {
    /// Token embedding, `[vocab, hidden]`.
    Embed,
    /// A parameter of the decoder block with this index.
    Layer(usize, LayerParam),
    /// Norm before the output head, `[hidden]`.
    FinalNorm,
    /// Output head, `[vocab, hidden]`.
    LmHead,
}

/// A parameter of a decoder block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerParam {
    /// Norm before attention, `[hidden]`.
    AttnNorm,
    /// Norm before the feed-forward layer, `[hidden]`.
    MlpNorm,
    /// Norm of each query head, `[head_dim]`.
    QNorm,
    /// Norm of each key head, `[head_dim]`.
    KNorm,
    /// Weight of a linear layer, `[out, in]`.
    Weight(Linear),
    /// Bias of a linear layer, `[out]`.
    Bias(Linear),
}

/// Reads a family's rules; the error of an unknown `model_type` lists what is supported.
pub(super) fn rules(model_type: &str, fields: &Fields<'_>, num_layers: usize) -> Result<Rules, ConfigError> {
    (find(model_type)?.rules)(fields, num_layers)
}

/// Refuses a `model_type` that no family file describes.
pub(super) fn check(model_type: &str) -> Result<(), ConfigError> {
    find(model_type).map(|_| ())
}

/// Returns the tensor name of a parameter of a supported family (llama's for any other name).
pub(super) fn tensor_name(model_type: &str, param: Param) -> String {
    find(model_type).map_or_else(|_| llama::tensor_name(param), |family| (family.tensor_name)(param))
}

fn find(model_type: &str) -> Result<&'static Family, ConfigError> {
    static ALL: [Family; 4] = FAMILIES;
    ALL.iter()
        .find(|family| family.model_type == model_type)
        .ok_or_else(|| ConfigError::UnsupportedModelType { found: model_type.to_owned() })
}

/// The same attention in every block.
fn uniform(window: Option<usize>, num_layers: usize) -> Vec<LayerSpec> {
    vec![LayerSpec { window }; num_layers]
}
