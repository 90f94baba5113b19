//! The architecture of a decoder as numbers: what `config.json` means once its dialect and its family's
//! rules are out of the way.
//!
//! Names: `hidden` is the width of the residual stream, `head_dim` the width of one attention head. The
//! query projection is `[num_heads * head_dim, hidden]`, which need not be square.

use seedcorn_adapters::target::LinearModule;
use serde::Serialize;

use super::family::{self, LINEARS, LayerParam, Linear, Param};

/// Everything the decoder, the loader and the planner need to know about a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSpec {
    /// The family's name in `config.json`, one of [`family::SUPPORTED`].
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Number of decoder blocks.
    pub num_layers: usize,
    /// Rows of the embedding and of the output head.
    pub vocab_size: usize,
    /// Longest sequence the model was made for, tokens.
    pub max_position_embeddings: usize,
    /// Heads of attention.
    pub heads: HeadSpec,
    /// Added to the mean square under the root of every norm.
    pub rms_norm_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeSpec,
    /// What differs from block to block; `num_layers` entries.
    pub layers: Vec<LayerSpec>,
    /// The output head is the embedding itself; a checkpoint then holds no `lm_head.weight`.
    pub tie_word_embeddings: bool,
    /// The query, key and value projections have biases.
    pub qkv_bias: bool,
    /// The attention output projection has a bias.
    pub o_bias: bool,
    /// The three feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Queries and keys go through an RMS norm over `head_dim` before the rotation.
    pub qk_norm: bool,
    /// The gate of the feed-forward layer.
    pub activation: Activation,
    /// First token of a document, where the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; may be empty, the tokenizer then decides.
    pub eos_token_ids: Vec<u32>,
    /// Padding token, where the model has one.
    pub pad_token_id: Option<u32>,
    /// How the checkpoint's linear layers are packed; `None` for a dense checkpoint.
    pub quantization: Option<BnbConfig>,
}

/// Counts and width of attention heads; `num_heads` is a multiple of `num_kv_heads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HeadSpec {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of one head; even, because rotation works on pairs.
    pub head_dim: usize,
}

impl HeadSpec {
    /// Output width of the query projection, `num_heads * head_dim`.
    #[must_use]
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Output width of the key projection and of the value projection, `num_kv_heads * head_dim`.
    #[must_use]
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
}

/// What differs from one decoder block to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LayerSpec {
    /// Sliding window: position `i` sees `j` when `i - window < j <= i`. `None` sees all before it.
    pub window: Option<usize>,
}

/// The gate of the feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Activation {
    /// `silu(gate(x)) * up(x)`.
    SwiGlu,
}

/// Rotary position embedding of the whole head, halves rotated (`x[i]` with `x[i + head_dim / 2]`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RopeSpec {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How the frequencies are stretched beyond the pretraining length.
    pub scaling: RopeScaling,
}

/// Stretching of rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum RopeScaling {
    /// Frequencies as they are.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// At least 1 in practice; positive and finite here.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Divisor of the long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Sequence length of pretraining, tokens.
        original_max_position_embeddings: usize,
    },
}

impl RopeSpec {
    /// Computes the angle per position of each rotated pair, `theta^(-2i / head_dim)`, then the scaling.
    ///
    /// # Shapes
    /// - result: `[head_dim / 2]`
    ///
    /// # Numerics
    /// Every step rounds to f32 as transformers' tensors do. The power alone is taken in f64 and rounded,
    /// since `powf` in f32 differs between platforms.
    ///
    /// # Source
    /// huggingface/transformers `modeling_rope_utils.py` (5.23.0): `_compute_linear_scaling_rope_parameters`,
    /// `_compute_llama3_parameters`; `compute_default_rope_parameters` of the llama model.
    #[must_use]
    pub fn inv_freq(&self, head_dim: usize) -> Vec<f32> {
        let theta = f64::from(self.theta as f32);
        (0..head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / head_dim as f32;
                self.scaling.apply(1.0 / theta.powf(f64::from(exponent)) as f32)
            })
            .collect()
    }

    /// Factor on the sines and cosines; 1 for every scaling supported here.
    #[must_use]
    pub fn attention_scaling(&self) -> f32 {
        1.0
    }
}

impl RopeScaling {
    fn apply(self, freq: f32) -> f32 {
        match self {
            Self::None => freq,
            Self::Linear { factor } => freq / factor as f32,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let original = original_max_position_embeddings as f64;
                let wavelength = std::f64::consts::TAU as f32 / freq;
                if wavelength > (original / low_freq_factor) as f32 {
                    return freq / factor as f32;
                }
                if wavelength < (original / high_freq_factor) as f32 {
                    return freq;
                }
                let ramp = (original as f32 / wavelength - low_freq_factor as f32)
                    / (high_freq_factor - low_freq_factor) as f32;
                (1.0 - ramp) * freq / factor as f32 + ramp * freq
            }
        }
    }
}

/// Packing of a checkpoint that bitsandbytes has already quantized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BnbConfig {
    /// Number format of the packed weights.
    pub kind: BnbKind,
    /// The scales of 4-bit blocks are themselves stored in 8 bits. The tensors decide; this is what was asked.
    pub double_quant: bool,
    /// Name of the dtype in which bitsandbytes would compute, such as `bfloat16`.
    pub compute_dtype: String,
    /// Name of the dtype as which the packed bytes are stored, such as `uint8`.
    pub quant_storage: String,
    /// Modules that were left dense (`llm_int8_skip_modules`); the output head is always dense.
    pub skip_modules: Vec<String>,
}

/// Number format of bitsandbytes weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum BnbKind {
    /// 4-bit normal float, blocks of 64.
    Nf4,
    /// Row-wise 8-bit integers.
    Int8,
}

impl ModelSpec {
    /// Returns the Hugging Face tensor name of a parameter.
    #[must_use]
    pub fn tensor_name(&self, param: Param) -> String {
        family::tensor_name(&self.model_type, param)
    }

    /// Returns `(out_features, in_features)` of one of a block's linear layers.
    #[must_use]
    pub fn linear_shape(&self, linear: Linear) -> (usize, usize) {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        match linear {
            Linear::Q => (self.heads.q_size(), hidden),
            Linear::K | Linear::V => (self.heads.kv_size(), hidden),
            Linear::O => (hidden, self.heads.q_size()),
            Linear::Gate | Linear::Up => (inner, hidden),
            Linear::Down => (hidden, inner),
        }
    }

    /// Returns the values of a block's linear layers.
    #[must_use]
    pub fn block_values(&self) -> usize {
        let values = LINEARS.map(|linear| {
            let (rows, columns) = self.linear_shape(linear);
            rows.saturating_mul(columns)
        });
        values.into_iter().fold(0, usize::saturating_add)
    }

    /// Tells whether a block's linear layer has a bias.
    #[must_use]
    pub fn has_bias(&self, linear: Linear) -> bool {
        match linear {
            Linear::Q | Linear::K | Linear::V => self.qkv_bias,
            Linear::O => self.o_bias,
            Linear::Gate | Linear::Up | Linear::Down => self.mlp_bias,
        }
    }

    /// Lists every parameter with its shape, in forward order; a tied output head is not listed.
    #[must_use]
    pub fn parameters(&self) -> Vec<(Param, Vec<usize>)> {
        let mut all = vec![(Param::Embed, vec![self.vocab_size, self.hidden_size])];
        for layer in 0..self.num_layers {
            let of = |param| Param::Layer(layer, param);
            all.push((of(LayerParam::AttnNorm), vec![self.hidden_size]));
            for linear in LINEARS {
                if linear == Linear::Gate {
                    all.push((of(LayerParam::MlpNorm), vec![self.hidden_size]));
                }
                let (rows, columns) = self.linear_shape(linear);
                all.push((of(LayerParam::Weight(linear)), vec![rows, columns]));
                if self.has_bias(linear) {
                    all.push((of(LayerParam::Bias(linear)), vec![rows]));
                }
            }
            if self.qk_norm {
                all.push((of(LayerParam::QNorm), vec![self.heads.head_dim]));
                all.push((of(LayerParam::KNorm), vec![self.heads.head_dim]));
            }
        }
        all.push((Param::FinalNorm, vec![self.hidden_size]));
        if !self.tie_word_embeddings {
            all.push((Param::LmHead, vec![self.vocab_size, self.hidden_size]));
        }
        all
    }

    /// Lists every linear layer, the output head last (also when it is tied): what adapters can target.
    #[must_use]
    pub fn linear_modules(&self) -> Vec<LinearModule> {
        let module = |param, (out_features, in_features)| LinearModule {
            name: self.tensor_name(param).trim_end_matches(".weight").to_owned(),
            in_features,
            out_features,
        };
        let mut all: Vec<_> = (0..self.num_layers)
            .flat_map(|layer| LINEARS.map(|linear| (layer, linear)))
            .map(|(layer, linear)| {
                module(Param::Layer(layer, LayerParam::Weight(linear)), self.linear_shape(linear))
            })
            .collect();
        all.push(module(Param::LmHead, (self.vocab_size, self.hidden_size)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_frequencies_are_powers_of_theta() {
        let rope = RopeSpec { theta: 10000.0, scaling: RopeScaling::None };
        let got = rope.inv_freq(8);
        for (a, b) in got.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((a / b - 1.0).abs() < 1e-6, "{a} vs {b}");
        }
        let linear = RopeSpec { theta: 10000.0, scaling: RopeScaling::Linear { factor: 4.0 } };
        assert_eq!(linear.inv_freq(8), got.iter().map(|f| f / 4.0).collect::<Vec<_>>());
    }
}
