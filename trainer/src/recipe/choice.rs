//! The settings that are one word out of a few.

use serde::{Deserialize, Serialize};

/// Storage of the frozen base weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    /// As the source stores them, in the compute type.
    #[default]
    None,
    /// 4 bit normal float, blocks of 64.
    Nf4,
    /// 8 bit integers, one scale a row.
    Int8,
}

impl Quantize {
    /// Returns the word that a recipe has for it.
    pub fn word(self) -> &'static str {
        match self {
            Quantize::None => "none",
            Quantize::Nf4 => "nf4",
            Quantize::Int8 => "int8",
        }
    }
}

/// Number type of activations and products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// 32 bit.
    #[default]
    F32,
    /// bfloat16 operands with sums in 32 bit.
    Bf16,
}

/// Kind of adapter that is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// Low-rank update `W + s B A`.
    #[default]
    Lora,
}

/// What happens to a sample that is longer than `data.max_length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLong {
    /// Cut at the end, and counted.
    #[default]
    Truncate,
    /// Left out, and counted.
    Drop,
    /// Made into several samples, each of `data.max_length` tokens but the last.
    Split,
}

/// Which tokens of a sample are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainOn {
    /// Every answer: assistant turns, responses, completions.
    Assistant,
    /// Every token.
    All,
    /// Only the last answer.
    Last,
}

/// Layout of the records of a data source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `messages` with `role` and `content`, or ShareGPT's `conversations`.
    Chat,
    /// Alpaca: `instruction`, `input`, `output`.
    Instruction,
    /// `prompt` and `completion`.
    Completion,
    /// `text`.
    Text,
    /// Ready `input_ids` and `labels`.
    Tokens,
}

impl Format {
    /// What is trained when the recipe does not say; `None` where the file's own labels decide.
    pub fn default_train_on(self) -> Option<TrainOn> {
        match self {
            Format::Chat | Format::Instruction | Format::Completion => Some(TrainOn::Assistant),
            Format::Text => Some(TrainOn::All),
            Format::Tokens => None,
        }
    }

    /// Returns the names of the fields that a record of this format may have.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Format::Chat => &["messages", "conversations"],
            Format::Instruction => &["instruction", "input", "output", "system"],
            Format::Completion => &["prompt", "completion"],
            Format::Text => &["text"],
            Format::Tokens => &["input_ids", "labels"],
        }
    }

    /// Whether a record has a question side and an answer side, so that `train_on` is a choice.
    pub fn has_turns(self) -> bool {
        matches!(self, Format::Chat | Format::Instruction | Format::Completion)
    }
}

/// What the forward pass keeps for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The inputs of each block; the rest is computed again.
    #[default]
    Recompute,
    /// Everything.
    Keep,
    /// Everything of as many blocks as fit `train.memory_budget`, the inputs of the others.
    Auto,
}

/// How ranks add their gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// In one tree over micro-batches: the bits of one rank.
    #[default]
    Tree,
    /// In the engine's own order, which depends on the ranks.
    Fast,
}

impl Reduction {
    /// Whether any number of ranks gives the same bits.
    pub fn is_tree(&self) -> bool {
        *self == Reduction::Tree
    }
}

/// Update rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay, as in torch.
    #[default]
    AdamW,
}

/// Curve of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Stays at `lr`.
    Constant,
    /// Straight line to `lr * min_ratio`.
    Linear,
    /// Half a cosine to `lr * min_ratio`.
    #[default]
    Cosine,
}

/// What a source whose licence nobody states, or nobody lists, means to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// A line in the plan, as without a policy.
    Allow,
    /// A warning.
    Warn,
    /// The run does not start.
    Refuse,
}

/// Merged model written beside the adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Merged {
    /// No merged model.
    #[default]
    None,
    /// Safetensors in bfloat16.
    Bf16,
    /// Safetensors in 32 bit.
    F32,
}
