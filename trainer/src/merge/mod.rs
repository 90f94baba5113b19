//! Merging of an adapter into its base: a model folder that is loaded back and compared before it counts as done.

mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use seedcorn_adapters::Adapter;
use seedcorn_adapters::lora::LoraWeights;
use seedcorn_data::source::Resolved;
use seedcorn_data::{MicroBatch, Sample};
use seedcorn_kernels::frozen::Compute;
use seedcorn_kernels::{int8, nf4};

use crate::base::{self, Base};
use crate::error::Explained;
use crate::export::merge::merge_into;
use crate::export::{ExportDtype, ExportError, HubFolder, side_files, write_hub_folder};
use crate::model::{Input, NF4_BLOCK, Precision};
use crate::recipe::Quantize;
use crate::weights::Dtype;

pub use report::{Difference, Merged, Rival};

/// Text on which logits are compared; a model without tokenizer gets ids spread over its vocabulary.
const PROBE: &str = "A seed is a small plant in a box with its lunch. Sow it in spring, 2 cm deep, and wait: \
                     within 10 days the first leaf shows. How much water does it need?";
/// Tokens of the comparison.
const PROBE_TOKENS: usize = 32;

/// The weights that an adapter is merged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// As the base stores them.
    Full,
    /// Quantized and dequantized again, as training saw them.
    Dequantized,
}

/// How the linear layers were quantized while the adapter was trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// Format.
    pub quantize: Quantize,
    /// Whether NF4's scales are quantized too.
    pub double_quant: bool,
}

impl RoundTrip {
    /// What QLoRA does: NF4 with double quantization.
    pub const QLORA: Self = Self { quantize: Quantize::Nf4, double_quant: true };
    /// Nothing was quantized.
    pub const NONE: Self = Self { quantize: Quantize::None, double_quant: false };

    fn precision(self) -> Precision {
        Precision { quantize: self.quantize, double_quant: self.double_quant, compute: Compute::F32 }
    }

    fn apply(self, values: Vec<f32>, shape: [usize; 2]) -> Vec<f32> {
        match self.quantize {
            Quantize::Nf4 => nf4::quantize(&values, shape, NF4_BLOCK, self.double_quant).dequantize(),
            Quantize::Int8 => int8::quantize(&values, shape).dequantize(),
            Quantize::None => values,
        }
    }
}

/// A merge to be done.
pub struct Merge<'a> {
    /// The base model.
    pub base: &'a Base,
    /// The adapter.
    pub adapter: &'a [LoraWeights],
    /// The folder to write.
    pub path: &'a Path,
    /// Number type of the written weights.
    pub dtype: ExportDtype,
    /// What to merge into.
    pub target: Target,
    /// Quantization that [`Target::Dequantized`] means.
    pub round_trip: RoundTrip,
    /// Largest file, bytes.
    pub shard_bytes: u64,
}

impl Merge<'_> {
    /// Writes the folder, loads it back, and measures what the choice of weights means.
    ///
    /// # Errors
    /// What keeps the base from being read or the folder from being written; logits that differ from those of
    /// base and adapter by more than f32 explains.
    pub fn run(&self) -> anyhow::Result<Merged> {
        self.refuse_own_base()?;
        self.base.check(RoundTrip::NONE.precision(), 1)?;
        let stored = self.is_stored_quantized();
        // A base that is stored quantized has no other weights.
        let trip = if stored { RoundTrip::NONE } else { self.round_trip };
        self.write(trip)?;

        let adapter = Adapter::new(self.adapter.to_vec(), &Device::flex());
        let probe = probe(self.base)?;
        let logits = |base: &Base, trip: RoundTrip, adapter: Option<&Adapter>| -> anyhow::Result<Vec<f32>> {
            let decoder = base.load(trip.precision(), &Device::flex())?;
            Ok(decoder.logits(&probe, adapter).into_data().try_to_vec()?)
        };
        let (chosen, other) = match self.target {
            Target::Full => (RoundTrip::NONE, trip),
            Target::Dequantized => (trip, RoundTrip::NONE),
        };
        let expected = logits(self.base, chosen, Some(&adapter))?;
        let back = self.read_back()?;
        let vocab = self.base.spec.vocab_size;
        let read_back = Difference::of(&expected, &logits(&back, RoundTrip::NONE, None)?, vocab);
        let rival = if stored {
            Rival::Same
        } else if trip == RoundTrip::NONE {
            Rival::None
        } else {
            Rival::Measured(Difference::of(&expected, &logits(self.base, other, Some(&adapter))?, vocab))
        };
        let merged = Merged::new(self, read_back, rival, trip)?;
        merged.check()?;
        Ok(merged)
    }

    /// Streams the merged tensors into the folder.
    fn write(&self, trip: RoundTrip) -> anyhow::Result<()> {
        let spec = &self.base.spec;
        let tensors: Vec<_> =
            spec.parameters().into_iter().map(|(param, shape)| (spec.tensor_name(param), shape)).collect();
        let linear: BTreeMap<String, [usize; 2]> = self
            .base
            .linear_modules()
            .into_iter()
            .map(|module| (format!("{}.weight", module.name), [module.out_features, module.in_features]))
            .collect();
        let adapters: BTreeMap<String, &LoraWeights> =
            self.adapter.iter().map(|one| (format!("{}.weight", one.name), one)).collect();
        let trip = if self.target == Target::Dequantized { trip } else { RoundTrip::NONE };
        let mut provide = |name: &str| -> Result<Vec<f32>, ExportError> {
            let mut values = self
                .base
                .weights
                .read_f32(name)
                .map_err(|source| ExportError::Provide { name: name.to_owned(), source: source.into() })?;
            if let Some(shape) = linear.get(name) {
                values = trip.apply(values, *shape);
            }
            if let Some(adapter) = adapters.get(name) {
                merge_into(&mut values, adapter)?;
            }
            Ok(values)
        };
        let model = HubFolder {
            config: &self.base.config,
            side_files: &side_files(self.base)?,
            tensors: &tensors,
            dtype: self.dtype,
            shard_bytes: self.shard_bytes,
        };
        Ok(write_hub_folder(self.path, &model, &mut provide)?)
    }

    fn read_back(&self) -> anyhow::Result<Base> {
        let written = Resolved { root: self.path.to_owned(), files: Vec::new(), revision: None };
        let back = base::read(self.path.display().to_string(), written)?;
        let ids =
            |base: &Base| base.tokenizer.as_ref().map(|tokenizer| tokenizer.encode(PROBE, true)).transpose();
        if ids(&back)? != ids(self.base)? {
            let path = self.path.display();
            return Err(Explained::new(format!("the tokenizer in `{path}` gives other ids than the base's"))
                .with_hint("this is a bug; copy the tokenizer of the base by hand")
                .into());
        }
        Ok(back)
    }

    /// Whether the checkpoint holds its linear layers quantized by bitsandbytes.
    fn is_stored_quantized(&self) -> bool {
        self.base.linear_modules().iter().any(|module| {
            let info = self.base.weights.info(&format!("{}.weight", module.name));
            info.is_some_and(|info| matches!(info.dtype, Dtype::Nf4 | Dtype::Int8))
        })
    }

    /// Refuses to write over the folder that the weights are being read from.
    fn refuse_own_base(&self) -> anyhow::Result<()> {
        let same = match (fs_err::canonicalize(self.path), fs_err::canonicalize(&self.base.resolved.root)) {
            (Ok(path), Ok(base)) => path == base,
            _ => false,
        };
        if !same {
            return Ok(());
        }
        Err(Explained::usage(format!("`{}` is the base model's own folder", self.path.display()))
            .with_hint("name another folder with `--out`")
            .into())
    }
}

/// Returns the tokens that logits are compared on.
fn probe(base: &Base) -> anyhow::Result<Input> {
    let vocab = base.spec.vocab_size as u64;
    let mut input_ids = match &base.tokenizer {
        Some(tokenizer) => tokenizer.encode(PROBE, true)?,
        // Steps of the golden ratio spread evenly over any vocabulary.
        None => {
            (0..PROBE_TOKENS as u64).map(|at| ((at * 0x9e37_79b9 % (1 << 32) * vocab) >> 32) as u32).collect()
        }
    };
    input_ids.truncate(PROBE_TOKENS.min(base.spec.max_position_embeddings).max(1));
    let labels = input_ids.iter().map(|&id| id as i32).collect();
    let sample = Sample { input_ids, labels, ..Sample::default() };
    Ok(Input::from(&MicroBatch::from_samples(0, &[&sample])))
}
