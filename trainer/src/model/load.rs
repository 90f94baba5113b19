//! From named tensors to a decoder, one tensor at a time, so that the peak stays near the loaded size.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use seedcorn_adapters::Projection;
use seedcorn_kernels::attention::{AttentionConfig, QkvLayout};
use seedcorn_kernels::device::TooLarge;
use seedcorn_kernels::frozen::{Compute, Form, FrozenWeight, Storage};
use seedcorn_kernels::nf4::Nf4;
use seedcorn_kernels::rope::RopeTable;
use seedcorn_kernels::section::Section;
use seedcorn_kernels::{int8, nf4};

use super::block::{Block, Shared};
use super::decoder::Decoder;
use super::family::{LayerParam, Linear, Param};
use super::shards::{Cut, Shards, SharedTable};
use super::slice::{Slice, SliceError};
use super::spec::ModelSpec;
use super::values::{Values, dense_rows, dense_storage};
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
    /// A weight that is larger than the device's largest buffer.
    #[error(
        "tensor `{name}` in `{}` takes a buffer of {bytes} bytes, and the device's largest is {largest}",
        file.display()
    )]
    Buffer {
        /// Hugging Face name.
        name: String,
        /// The file that holds it.
        file: PathBuf,
        /// What it takes.
        bytes: u64,
        /// What the device has.
        largest: u64,
    },
    /// The model cannot be shared out among so many ranks.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// A quantized tensor whose blocks are larger than those that slices are made for.
    #[error(
        "tensor `{name}` is stored in nf4 blocks of {block_size}, and {part:?} of its {shape:?} begins or ends within one"
    )]
    CutBlock {
        /// Hugging Face name.
        name: String,
        /// Values of a block.
        block_size: usize,
        /// What this rank needs.
        part: Section,
        /// The whole.
        shape: [usize; 2],
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
            Self::Buffer { bytes, largest, .. } if bytes.div_ceil(2) <= *largest => {
                Some("use the device `cpu`, or compute in `bf16`, which halves a tensor kept in f32".into())
            }
            Self::Buffer { .. } => Some("use the device `cpu`, or one with larger buffers".into()),
            Self::Slice(error) => Some(error.hint()),
            Self::CutBlock { .. } => {
                Some("set `parallel.tensor = 1`, or quantize the dense checkpoint while loading".into())
            }
        }
    }
}

/// Builds the decoder that `spec` describes from the tensors of `source`.
///
/// # Errors
/// [`LoadError`]
pub fn load(
    spec: ModelSpec,
    source: &dyn TensorSource,
    precision: Precision,
    device: &Device,
) -> Result<Decoder, LoadError> {
    load_part(spec, source, precision, device, Slice::WHOLE, None)
}

/// As [`load`], of one slice of a model, and of a decoder that ranks share: this one's part, if there is a cut. Of what a
/// checkpoint stores dense only the slice is read, unless scales that hang together over the whole tensor are made of
/// it. No more than one tensor that is not kept is in memory at one time.
pub fn load_part(
    spec: ModelSpec,
    source: &dyn TensorSource,
    precision: Precision,
    device: &Device,
    slice: Slice,
    cut: Option<Cut>,
) -> Result<Decoder, LoadError> {
    let loader = Loader { spec: &spec, source, precision, slice, device, cut };
    let (embed, embed_rows) = loader.table(Param::Embed)?;
    // One tensor after another: threads share the work on each, and what it keeps is allocated by this one,
    // which has memory to reuse from reading the tokenizer.
    let blocks = (0..spec.num_layers).map(|layer| loader.block(layer));
    let (blocks, kept): (Vec<Block>, Vec<Arc<[u8]>>) = blocks.collect::<Result<_, _>>()?;
    let norm = loader.norm(Param::FinalNorm, spec.hidden_size)?;
    let (head, head_rows) =
        if spec.tie_word_embeddings { (embed.clone(), None) } else { loader.table(Param::LmHead)? };
    let shards = cut.zip(embed_rows).map(|(cut, embed)| Shards { cut, blocks: kept, embed, head: head_rows });
    let heads = slice.spec(&spec).heads;
    let layout =
        QkvLayout { num_heads: heads.num_heads, num_kv_heads: heads.num_kv_heads, head_dim: heads.head_dim };
    let rope = RopeTable {
        inv_freq: spec.rope.inv_freq(heads.head_dim).into(),
        attention_scaling: spec.rope.attention_scaling(),
    };
    let shared = Shared { layout, rope };
    Ok(Decoder { device: device.clone(), slice, embed, blocks, shared, norm, head, shards, spec })
}

struct Loader<'a> {
    spec: &'a ModelSpec,
    source: &'a dyn TensorSource,
    precision: Precision,
    slice: Slice,
    device: &'a Device,
    cut: Option<Cut>,
}

impl Loader<'_> {
    /// Loads a block; where ranks share it, this one's part of its matrices.
    fn block(&self, layer: usize) -> Result<(Block, Arc<[u8]>), LoadError> {
        let of = |param| Param::Layer(layer, param);
        let mut kept = Vec::new();
        let mut linear = |linear| self.linear(layer, linear, &mut kept);
        let (hidden, head_dim) = (self.spec.hidden_size, self.spec.heads.head_dim);
        let qk_norm = if self.spec.qk_norm {
            Some([self.norm(of(LayerParam::QNorm), head_dim)?, self.norm(of(LayerParam::KNorm), head_dim)?])
        } else {
            None
        };
        let block = Block {
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
            residual: self.slice.is_first(),
        };
        Ok((block, kept.into()))
    }

    fn linear(&self, layer: usize, linear: Linear, kept: &mut Vec<u8>) -> Result<Projection, LoadError> {
        let name = self.spec.tensor_name(Param::Layer(layer, LayerParam::Weight(linear)));
        let (out, width) = self.spec.linear_shape(linear);
        let shape = [out, width];
        let part = self.slice.section(self.spec, linear);
        let storage = match (self.source.read_quantized(&name)?, &part) {
            (Some(quantized), None) => self.stored(&name, shape, quantized)?,
            (Some(quantized), Some(part)) => section(&name, self.stored(&name, shape, quantized)?, part)?,
            (None, part) => self.packed(&name, shape, part.as_ref())?,
        };
        let bias = if self.spec.has_bias(linear) {
            let name = self.spec.tensor_name(Param::Layer(layer, LayerParam::Bias(linear)));
            let whole = self.vector(&name, out)?;
            match &part {
                None => Some(Arc::from(whole)),
                Some(Section::Rows(rows)) => Some(Arc::from(&whole[rows.clone()])),
                Some(Section::Columns(_)) => self.slice.is_first().then(|| Arc::from(whole)),
            }
        } else {
            None
        };
        let here = part.as_ref().map_or(shape, |part| part.shape(shape));
        let compute = self.precision.compute;
        let weight = match self.cut {
            Some(cut) => cut.keep(&storage, here, compute, kept),
            None => self.placed(&name, FrozenWeight::new(storage, here, compute))?,
        };
        Ok(Projection { name: name.trim_end_matches(".weight").to_owned(), weight, bias, part })
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

    /// Packs a part of a dense weight as the recipe says, a stretch at a time.
    fn packed(&self, name: &str, shape: [usize; 2], part: Option<&Section>) -> Result<Storage, LoadError> {
        let values = self.values(name, &shape)?;
        let Precision { quantize, double_quant, compute } = self.precision;
        // Scales of scales hang together over the whole, and those of int8 over a row.
        let needs_whole = match quantize {
            Quantize::Nf4 => double_quant,
            Quantize::Int8 => matches!(part, Some(Section::Columns(_))),
            Quantize::None => false,
        };
        let (read_part, cut_after) = if needs_whole { (None, part) } else { (part, None) };
        let here = read_part.map_or(shape, |part| part.shape(shape));
        let read = |start: usize, out: &mut [f32]| values.read_section(shape, read_part, start, out);
        let storage = match quantize {
            Quantize::Nf4 => Storage::Nf4(nf4::quantize_from(here, NF4_BLOCK, double_quant, read)),
            Quantize::Int8 => Storage::Int8(int8::quantize_from(here, read)),
            Quantize::None => dense_storage(here, compute, read),
        };
        self.finished(name, &values)?;
        match cut_after {
            Some(part) => section(name, storage, part),
            None => Ok(storage),
        }
    }

    /// Loads an embedding or a head: never quantized, as in bitsandbytes. Where ranks share it, this one's rows.
    fn table(&self, param: Param) -> Result<(FrozenWeight, Option<SharedTable>), LoadError> {
        let shape = [self.spec.vocab_size, self.spec.hidden_size];
        let rows = self.slice.vocabulary(self.spec);
        let (here, first) = ([rows.len(), shape[1]], rows.start * shape[1]);
        let (name, compute) = (self.spec.tensor_name(param), self.precision.compute);
        // bitsandbytes leaves tables alone unless it is told otherwise.
        if let Some(quantized) = self.source.read_quantized(&name)? {
            let (values, got) = match quantized {
                Quantized::Nf4(nf4) => (nf4.dequantize(), nf4.shape),
                Quantized::Int8(int8) => (int8.dequantize(), int8.shape),
            };
            self.check_shape(&name, &shape, &got)?;
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                let file = self.source.info(&name).map(|info| info.file).unwrap_or_default();
                return Err(LoadError::NotFinite { name, file, index, value: values[index] });
            }
            return self.rows(&name, here, compute, &|start, out: &mut [f32]| {
                out.copy_from_slice(&values[first + start..][..out.len()]);
            });
        }
        let values = self.values(&name, &shape)?;
        let table =
            self.rows(&name, here, compute, &|start, out: &mut [f32]| values.read(first + start, out))?;
        self.finished(&name, &values)?;
        Ok(table)
    }

    /// Keeps a table, or this rank's rows of it.
    fn rows(
        &self,
        name: &str,
        shape: [usize; 2],
        compute: Compute,
        read: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Result<(FrozenWeight, Option<SharedTable>), LoadError> {
        let Some(cut) = self.cut else {
            let table = FrozenWeight::new(dense_storage(shape, compute, read), shape, compute);
            return Ok((self.placed(name, table)?, None));
        };
        let width = shape[1];
        let rows = SharedTable::new(cut, shape, compute, self.spec.block_values() / self.slice.of, |rows| {
            dense_rows(rows, width, compute, |row, out| read(row * width, out))
        });
        Ok((FrozenWeight::away(Form::dense(compute, shape[0] * width), shape, compute), Some(rows)))
    }

    /// Moves a weight to where the model computes.
    fn placed(&self, name: &str, weight: FrozenWeight) -> Result<FrozenWeight, LoadError> {
        weight.on(self.device).map_err(|TooLarge { bytes, largest }| {
            let file = self.source.info(name).map(|info| info.file).unwrap_or_default();
            LoadError::Buffer { name: name.to_owned(), file, bytes, largest }
        })
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

/// Cuts a part out of a quantized weight.
fn section(name: &str, whole: Storage, part: &Section) -> Result<Storage, LoadError> {
    match whole {
        Storage::Int8(int8) => Ok(Storage::Int8(int8.cut(part))),
        Storage::Nf4(nf4) if nf4::is_whole_blocks(nf4.shape, nf4.block_size, part) => {
            Ok(Storage::Nf4(nf4.cut(part)))
        }
        Storage::Nf4(Nf4 { shape, block_size, .. }) => {
            Err(LoadError::CutBlock { name: name.to_owned(), block_size, part: part.clone(), shape })
        }
        dense => Ok(dense),
    }
}
