//! From named tensors to a decoder, one tensor at a time, so that the peak stays near the loaded size.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use seedcorn_adapters::Projection;
use seedcorn_kernels::attention::{AttentionConfig, QkvLayout};
use seedcorn_kernels::frozen::{Compute, FrozenWeight, Storage};
use seedcorn_kernels::rope::RopeTable;
use seedcorn_kernels::{int8, nf4};

use super::block::{Block, Shared};
use super::decoder::Decoder;
use super::family::{LayerParam, Linear, Param};
use super::spec::ModelSpec;
use super::values::{Values, dense_storage};
use crate::recipe::Quantize;
use crate::weights::{Quantized, TensorSource, WeightsError};

/// Values that share a scale in NF4, as bitsandbytes has it.
pub(crate) const NF4_BLOCK: usize = 64;

/// How frozen weights are kept.
#[derive(Clone, Copy, Debug)]
pub struct Precision {
    /// Storage of the blocks' linear layers; embedding, head and norms stay dense.
    pub quantize: Quantize,
    /// Whether NF4's scales are quantized too.
    pub double_quant: bool,
    /// What products are computed in; dense weights are kept in this type.
    pub compute: Compute,
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The checkpoint lacks a tensor that the architecture has.
    #[error("tensor `{name}` is missing")]
    Missing {
        /// Hugging Face name.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor `{name}` in `{}` is {got:?}, but `config.json` says {expected:?}", file.display())]
    Shape {
        /// Hugging Face name.
        name: String,
        /// The file that holds it.
        file: PathBuf,
        /// What the architecture asks for.
        expected: Vec<usize>,
        /// What the file has.
        got: Vec<usize>,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{name}` in `{}` holds {value} at element {index}", file.display())]
    NotFinite {
        /// Hugging Face name.
        name: String,
        /// The file that holds it.
        file: PathBuf,
        /// Flat position of the first such element.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A checkpoint that is quantized one way and a recipe that asks for another.
    #[error("tensor `{name}` is stored as `{stored}`, but `model.quantize` asks for `{}`", asked.word())]
    Requantize {
        /// Hugging Face name.
        name: String,
        /// How the checkpoint stores it.
        stored: &'static str,
        /// What the recipe asks for.
        asked: Quantize,
    },
}

impl LoadError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => {
                Some("the checkpoint and its `config.json` may be of different models".into())
            }
            Self::Shape { .. } => Some("check that `config.json` belongs to these weights".into()),
            Self::NotFinite { .. } => {
                Some("fetch the checkpoint again, or use one without broken weights".into())
            }
            Self::Requantize { stored, .. } => Some(format!(
                "set `model.quantize = \"{stored}\"`, or use the checkpoint before quantization"
            )),
            Self::Weights(error) => error.hint().map(str::to_owned),
        }
    }
}

/// Builds the decoder that `spec` describes from the tensors of `source`.
pub fn load(
    spec: ModelSpec,
    source: &dyn TensorSource,
    precision: Precision,
    device: &Device,
) -> Result<Decoder, LoadError> {
    let loader = Loader { spec: &spec, source, precision, device };
    let embed = loader.table(Param::Embed)?;
    // One tensor after another: threads share the work on each, and what it keeps is allocated by this one,
    // which has memory to reuse from reading the tokenizer.
    let blocks = (0..spec.num_layers).map(|layer| loader.block(layer)).collect::<Result<_, _>>()?;
    let norm = loader.norm(Param::FinalNorm, spec.hidden_size)?;
    let head = if spec.tie_word_embeddings { embed.clone() } else { loader.table(Param::LmHead)? };
    let heads = spec.heads;
    let layout =
        QkvLayout { num_heads: heads.num_heads, num_kv_heads: heads.num_kv_heads, head_dim: heads.head_dim };
    let rope = RopeTable {
        inv_freq: spec.rope.inv_freq(heads.head_dim).into(),
        attention_scaling: spec.rope.attention_scaling(),
    };
    let shared = Shared { layout, rope };
    Ok(Decoder { device: device.clone(), embed, blocks, shared, norm, head, spec })
}

struct Loader<'a> {
    spec: &'a ModelSpec,
    source: &'a dyn TensorSource,
    precision: Precision,
    device: &'a Device,
}

impl Loader<'_> {
    fn block(&self, layer: usize) -> Result<Block, LoadError> {
        let of = |param| Param::Layer(layer, param);
        let linear = |linear| self.linear(layer, linear);
        let (hidden, head_dim) = (self.spec.hidden_size, self.spec.heads.head_dim);
        let qk_norm = if self.spec.qk_norm {
            Some([self.norm(of(LayerParam::QNorm), head_dim)?, self.norm(of(LayerParam::KNorm), head_dim)?])
        } else {
            None
        };
        Ok(Block {
            attn_norm: self.norm(of(LayerParam::AttnNorm), hidden)?,
            mlp_norm: self.norm(of(LayerParam::MlpNorm), hidden)?,
            qkv: [linear(Linear::Q)?, linear(Linear::K)?, linear(Linear::V)?],
            qk_norm,
            o: linear(Linear::O)?,
            gate_up: [linear(Linear::Gate)?, linear(Linear::Up)?],
            down: linear(Linear::Down)?,
            attention: AttentionConfig {
                scale: 1.0 / (head_dim as f32).sqrt(),
                window: self.spec.layers[layer].window,
                soft_cap: None,
                compute: self.precision.compute,
            },
            eps: self.spec.rms_norm_eps,
        })
    }

    fn linear(&self, layer: usize, linear: Linear) -> Result<Projection, LoadError> {
        let name = self.spec.tensor_name(Param::Layer(layer, LayerParam::Weight(linear)));
        let (out, width) = self.spec.linear_shape(linear);
        let shape = [out, width];
        let storage = match self.source.read_quantized(&name)? {
            Some(quantized) => self.stored(&name, shape, quantized)?,
            None => self.packed(&name, shape)?,
        };
        let bias = if self.spec.has_bias(linear) {
            let name = self.spec.tensor_name(Param::Layer(layer, LayerParam::Bias(linear)));
            Some(Arc::from(self.vector(&name, out)?))
        } else {
            None
        };
        let weight = FrozenWeight::new(storage, shape, self.precision.compute).on(self.device);
        Ok(Projection { name: name.trim_end_matches(".weight").to_owned(), weight, bias })
    }

    /// Takes a weight that the checkpoint holds quantized, as it is.
    fn stored(&self, name: &str, shape: [usize; 2], quantized: Quantized) -> Result<Storage, LoadError> {
        let (got, stored, kind, storage) = match quantized {
            Quantized::Nf4(nf4) => (nf4.shape, "nf4", Quantize::Nf4, Storage::Nf4(nf4)),
            Quantized::Int8(int8) => (int8.shape, "int8", Quantize::Int8, Storage::Int8(int8)),
        };
        let asked = self.precision.quantize;
        if asked != Quantize::None && asked != kind {
            return Err(LoadError::Requantize { name: name.to_owned(), stored, asked });
        }
        self.check_shape(name, &shape, &got)?;
        Ok(storage)
    }

    /// Packs a dense weight as the recipe says, a stretch at a time.
    fn packed(&self, name: &str, shape: [usize; 2]) -> Result<Storage, LoadError> {
        let values = self.values(name, &shape)?;
        let read = |start: usize, out: &mut [f32]| values.read(start, out);
        let storage = match self.precision.quantize {
            Quantize::Nf4 => {
                Storage::Nf4(nf4::quantize_from(shape, NF4_BLOCK, self.precision.double_quant, read))
            }
            Quantize::Int8 => Storage::Int8(int8::quantize_from(shape, read)),
            Quantize::None => dense_storage(shape, self.precision.compute, read),
        };
        self.finished(name, &values)?;
        Ok(storage)
    }

    /// Loads an embedding or a head: never quantized, as in bitsandbytes.
    fn table(&self, param: Param) -> Result<FrozenWeight, LoadError> {
        let shape = [self.spec.vocab_size, self.spec.hidden_size];
        let (name, compute) = (self.spec.tensor_name(param), self.precision.compute);
        // bitsandbytes leaves tables alone unless it is told otherwise.
        let storage = if let Some(quantized) = self.source.read_quantized(&name)? {
            let (values, got) = match quantized {
                Quantized::Nf4(nf4) => (nf4.dequantize(), nf4.shape),
                Quantized::Int8(int8) => (int8.dequantize(), int8.shape),
            };
            self.check_shape(&name, &shape, &got)?;
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                let file = self.source.info(&name).map(|info| info.file).unwrap_or_default();
                return Err(LoadError::NotFinite { name, file, index, value: values[index] });
            }
            dense_storage(shape, compute, |start, out| out.copy_from_slice(&values[start..][..out.len()]))
        } else {
            let values = self.values(&name, &shape)?;
            let storage = dense_storage(shape, compute, |start, out| values.read(start, out));
            self.finished(&name, &values)?;
            storage
        };
        Ok(FrozenWeight::new(storage, shape, compute).on(self.device))
    }

    fn norm(&self, param: Param, width: usize) -> Result<Tensor<1>, LoadError> {
        let values = self.vector(&self.spec.tensor_name(param), width)?;
        Ok(Tensor::from_data(TensorData::new(values, [width]), self.device))
    }

    fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>, LoadError> {
        let values = self.values(name, &[width])?;
        let mut out = vec![0.0; width];
        values.read(0, &mut out);
        self.finished(name, &values)?;
        Ok(out)
    }

    /// Finds a dense tensor of the expected shape.
    fn values<'s>(&'s self, name: &str, shape: &[usize]) -> Result<Values<'s>, LoadError> {
        let info = self.source.info(name).ok_or_else(|| LoadError::Missing { name: name.to_owned() })?;
        self.check_shape(name, shape, &info.shape)?;
        Ok(Values::new(self.source.plain(name)?, info.file))
    }

    /// Ends the reading of a tensor, which must have been finite.
    fn finished(&self, name: &str, values: &Values) -> Result<(), LoadError> {
        let broken = values.first_broken();
        self.source.release(name);
        broken.map_or(Ok(()), |(index, value)| {
            Err(LoadError::NotFinite { name: name.to_owned(), file: values.file().to_owned(), index, value })
        })
    }

    fn check_shape(&self, name: &str, expected: &[usize], got: &[usize]) -> Result<(), LoadError> {
        if got == expected {
            return Ok(());
        }
        let file = self.source.info(name).map(|info| info.file).unwrap_or_default();
        Err(LoadError::Shape { name: name.to_owned(), file, expected: expected.to_vec(), got: got.to_vec() })
    }
}
