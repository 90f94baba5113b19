//! The decoder: embedding, blocks, norm, head.
//!
//! Each half of a block is an autodiff graph of its own. The forward pass keeps either the graphs or only the blocks'
//! inputs; the backward pass walks the blocks from the last to the first, building a graph again where only an
//! input was kept. At no time does one graph span the model.
//!
//! A decoder may be one slice of a model, whose other slices other ranks hold: see [`Pass`].

use burn::tensor::{Device, Tensor};
use seedcorn_adapters::{Adapter, DropoutPlan, Projection};
use seedcorn_kernels::frozen::FrozenWeight;

use super::block::{Block, Shared};
use super::gradients::Gradients;
use super::input::Input;
use super::pass::Pass;
use super::slice::Slice;
use super::spec::ModelSpec;
use crate::parallel::TensorRanks;

/// A causal language model with frozen weights, or a slice of one.
#[derive(Debug)]
pub struct Decoder {
    /// The architecture of the whole model.
    pub spec: ModelSpec,
    pub(super) device: Device,
    pub(super) slice: Slice,
    /// `[vocab, d]`; of a slice its rows.
    pub(super) embed: FrozenWeight,
    pub(super) blocks: Vec<Block>,
    pub(super) shared: Shared,
    /// `[d]`.
    pub(super) norm: Tensor<1>,
    /// `[vocab, d]`, of a slice its rows; the embedding itself where they are tied.
    pub(super) head: FrozenWeight,
}

/// Why a call of a model that is whole cannot fail.
const WHOLE: &str = "a whole model needs no other rank";

impl Decoder {
    /// Returns the device that the model's tensors are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns which slice of the model this is.
    pub fn slice(&self) -> Slice {
        self.slice
    }

    /// Returns the linear layers of all blocks, in the order in which they are applied.
    pub fn projections(&self) -> impl Iterator<Item = &Projection> {
        self.blocks
            .iter()
            .flat_map(|block| block.qkv.iter().chain([&block.o]).chain(&block.gate_up).chain([&block.down]))
    }

    /// Returns the bytes that the frozen weights take.
    pub fn weight_bytes(&self) -> usize {
        let head = if self.spec.tie_word_embeddings { 0 } else { self.head.bytes() };
        let blocks = self.projections().map(|projection| projection.weight.bytes());
        self.embed.bytes() + head + blocks.sum::<usize>()
    }

    /// Joins the ranks that hold the other slices.
    ///
    /// # Panics
    /// When they are not as many as there are slices, or stand in another order.
    pub fn with<'a>(&'a self, ranks: TensorRanks<'a>) -> Pass<'a> {
        let asked = Slice { index: ranks.index(), of: ranks.size() };
        assert_eq!(self.slice, asked, "the ranks are those of the slices");
        Pass { model: self, ranks }
    }

    /// Stands alone, as a model that is whole does.
    ///
    /// # Panics
    /// When this is but a slice.
    pub fn alone(&self) -> Pass<'_> {
        self.with(TensorRanks::alone())
    }

    /// As [`Pass::loss_sum`], of a model that is whole.
    ///
    /// # Panics
    /// When this is but a slice.
    pub fn loss_sum(&self, input: &Input, adapter: Option<&Adapter>) -> f64 {
        self.alone().loss_sum(input, adapter).expect(WHOLE)
    }

    /// As [`Pass::logits`], of a model that is whole.
    ///
    /// # Panics
    /// When this is but a slice.
    pub fn logits(&self, input: &Input, adapter: Option<&Adapter>) -> Tensor<2> {
        self.alone().logits(input, adapter).expect(WHOLE)
    }

    /// As [`Pass::loss_and_gradients`], of a model that is whole.
    ///
    /// # Panics
    /// When this is but a slice.
    pub fn loss_and_gradients(
        &self,
        input: &Input,
        adapter: &Adapter,
        dropout: Option<DropoutPlan>,
        kept_blocks: usize,
    ) -> (f64, Gradients) {
        self.alone().loss_and_gradients(input, adapter, dropout, kept_blocks).expect(WHOLE)
    }
}
