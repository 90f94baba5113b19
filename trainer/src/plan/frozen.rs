//! Bytes of the weights that never change, from shapes and storage alone.

use seedcorn_kernels::frozen::Compute;
use seedcorn_kernels::nf4::{self, NESTED_BLOCK};
use seedcorn_kernels::section::Section;

use crate::base::Base;
use crate::model::family::{LayerParam, Param};
use crate::model::{ModelSpec, NF4_BLOCK, Precision, Slice};
use crate::recipe::Quantize;
use crate::weights::{Dtype, TensorInfo};

/// Values of one matrix beyond which a plan no longer counts: 4 bytes of each in all matrices of a model stay in 64 bit.
const MOST_VALUES: u64 = 1 << 46;

/// Bytes of the frozen weights as a model keeps them in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// Linear layers of all blocks.
    pub linear: u64,
    /// The embedding.
    pub embedding: u64,
    /// The output head; 0 where it is the embedding.
    pub head: u64,
    /// Norms and biases, in f32.
    pub small: u64,
    /// How the linear layers are kept.
    pub kind: Kind,
    /// The most bytes that are in memory while tensors are read one after the other, pages of their file included.
    pub loading: u64,
    /// The most that one tensor takes, pages of its file included.
    pub largest: u64,
}

/// How the linear layers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// 4 bytes a value.
    #[default]
    F32,
    /// 2 bytes a value.
    Bf16,
    /// 4 bits a value, and an f32 for each block.
    Nf4,
    /// 4 bits a value, and 8 bits for each block.
    Nf4Double,
    /// 8 bits a value, and an f32 for each row.
    Int8,
}

impl Kind {
    /// The kind in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Nf4 => "nf4",
            Self::Nf4Double => "nf4, scales in 8 bits",
            Self::Int8 => "int8",
        }
    }

    /// Whether nothing is quantized.
    pub fn is_dense(self) -> bool {
        matches!(self, Self::F32 | Self::Bf16)
    }

    fn dense(compute: Compute) -> Self {
        match compute {
            Compute::F32 => Self::F32,
            Compute::Bf16 => Self::Bf16,
        }
    }

    /// Bytes of a part of an `[out, in]` matrix, once it is cut out of the whole where that hangs together.
    fn bytes_of_section(self, shape: [u64; 2], part: Option<&Section>) -> u64 {
        let Some(part) = part else { return self.bytes(shape) };
        let shape = shape.map(|size| size as usize);
        match self {
            Self::Nf4 => nf4::bytes_of_section(shape, NF4_BLOCK, None, part) as u64,
            Self::Nf4Double => nf4::bytes_of_section(shape, NF4_BLOCK, Some(NESTED_BLOCK), part) as u64,
            Self::F32 | Self::Bf16 | Self::Int8 => self.bytes(part.shape(shape).map(|size| size as u64)),
        }
    }

    /// Whether a part can only be made of the whole, since scales hang together over it.
    fn needs_whole(self, part: &Section) -> bool {
        match self {
            Self::Nf4Double => true,
            Self::Int8 => matches!(part, Section::Columns(_)),
            Self::F32 | Self::Bf16 | Self::Nf4 => false,
        }
    }

    /// Bytes of an `[out, in]` matrix, as [`seedcorn_kernels::frozen::FrozenWeight::bytes`] counts them.
    fn bytes(self, [out, width]: [u64; 2]) -> u64 {
        // Sizes of a configuration are anyone's; no machine has what saturates.
        let values = out.saturating_mul(width).min(MOST_VALUES);
        let blocks = values.div_ceil(NF4_BLOCK as u64);
        match self {
            Self::F32 => 4 * values,
            Self::Bf16 => 2 * values,
            Self::Nf4 => values.div_ceil(2) + 4 * blocks,
            Self::Nf4Double => values.div_ceil(2) + blocks + 4 * blocks.div_ceil(NESTED_BLOCK as u64) + 4,
            Self::Int8 => values + 4 * out,
        }
    }
}

impl Frozen {
    /// Adds up the parameters of a slice of a model whose linear layers a recipe keeps so; `stored` is what a checkpoint says
    /// of a tensor, nothing where there is no checkpoint.
    pub fn new(
        spec: &ModelSpec,
        precision: Precision,
        slice: Slice,
        stored: &dyn Fn(&str) -> Option<TensorInfo>,
    ) -> Self {
        let dense = Kind::dense(precision.compute);
        let rows = slice.is_part().then(|| Section::Rows(slice.vocabulary(spec)));
        let mut frozen = Self::default();
        for (param, shape) in spec.parameters() {
            let info = stored(&spec.tensor_name(param));
            let size = |at: usize| shape.get(at).map_or(1, |size| *size as u64);
            let matrix = [size(0), size(1)];
            let (sum, kind, part) = match param {
                Param::Embed => (&mut frozen.embedding, dense, rows.clone()),
                Param::LmHead => (&mut frozen.head, dense, rows.clone()),
                Param::Layer(_, LayerParam::Weight(layer)) => {
                    frozen.kind = linear(precision, spec, info.as_ref());
                    (&mut frozen.linear, frozen.kind, slice.section(spec, layer))
                }
                Param::Layer(_, LayerParam::Bias(layer)) => match slice.section(spec, layer) {
                    Some(Section::Columns(_)) if !slice.is_first() => continue,
                    Some(Section::Columns(_)) => (&mut frozen.small, Kind::F32, None),
                    rows => (&mut frozen.small, Kind::F32, rows),
                },
                Param::Layer(..) | Param::FinalNorm => (&mut frozen.small, Kind::F32, None),
            };
            let bytes = kind.bytes_of_section(matrix, part.as_ref());
            *sum += bytes;
            let in_file = info.map_or_else(|| Kind::Bf16.bytes(matrix), |info| file_bytes(&info));
            let reading = match &part {
                Some(part) if kind.needs_whole(part) => in_file + kind.bytes(matrix),
                Some(_) => in_file / slice.of as u64,
                None => in_file,
            };
            frozen.largest = frozen.largest.max(bytes + reading);
            frozen.loading = frozen.loading.max(frozen.total() + reading);
        }
        frozen
    }

    /// As [`Frozen::new`], of the slice that takes most.
    pub fn of_largest(
        spec: &ModelSpec,
        precision: Precision,
        tensor: usize,
        stored: &dyn Fn(&str) -> Option<TensorInfo>,
    ) -> Self {
        let all = (0..tensor).map(|index| Self::new(spec, precision, Slice { index, of: tensor }, stored));
        all.max_by_key(Self::total).unwrap_or_default()
    }

    /// As [`Frozen::of_largest`], of a model's files.
    pub fn of(base: &Base, precision: Precision, tensor: usize) -> Self {
        Self::of_largest(&base.spec, precision, tensor, &|name| base.weights.info(name))
    }

    /// Returns all bytes.
    pub fn total(&self) -> u64 {
        self.linear + self.embedding + self.head + self.small
    }
}

/// Lists the bytes of each block's matrices as ranks send them to each other: without the one number of doubly quantized
/// scales that every rank keeps.
pub(super) fn matrices(
    spec: &ModelSpec,
    precision: Precision,
    slice: Slice,
    stored: &dyn Fn(&str) -> Option<TensorInfo>,
) -> Vec<Vec<u64>> {
    let mut blocks = vec![Vec::new(); spec.num_layers];
    for (param, shape) in spec.parameters() {
        let Param::Layer(layer, LayerParam::Weight(one)) = param else { continue };
        let info = stored(&spec.tensor_name(param));
        let kind = linear(precision, spec, info.as_ref());
        let matrix = [shape[0] as u64, shape[1] as u64];
        let part = slice.section(spec, one);
        let bytes = kind.bytes_of_section(matrix, part.as_ref());
        // Where a part's scales are no longer doubly quantized it takes what single ones take.
        let is_double = kind == Kind::Nf4Double && bytes != Kind::Nf4.bytes_of_section(matrix, part.as_ref());
        blocks[layer].push(bytes - if is_double { 4 } else { 0 });
    }
    blocks
}

/// How a linear layer is kept: as the checkpoint has it where it is quantized already.
fn linear(precision: Precision, spec: &ModelSpec, info: Option<&TensorInfo>) -> Kind {
    let nf4 = |double| if double { Kind::Nf4Double } else { Kind::Nf4 };
    match (info.map(|info| info.dtype), precision.quantize) {
        (Some(Dtype::Nf4), _) => nf4(spec.quantization.as_ref().is_some_and(|bnb| bnb.double_quant)),
        (Some(Dtype::Int8), _) | (_, Quantize::Int8) => Kind::Int8,
        (_, Quantize::Nf4) => nf4(precision.double_quant),
        (_, Quantize::None) => Kind::dense(precision.compute),
    }
}

fn file_bytes(info: &TensorInfo) -> u64 {
    let values = info.shape.iter().map(|size| *size as u64).product::<u64>();
    match info.dtype {
        Dtype::Plain(element) => values * element.bytes(),
        Dtype::Ggml(ty) => values.div_ceil(ty.block_len() as u64) * ty.block_bytes() as u64,
        Dtype::Nf4 | Dtype::Fp4 => values.div_ceil(2),
        Dtype::Int8 => values,
    }
}
