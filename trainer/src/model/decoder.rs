//! The decoder, and the way through its blocks and back.
//!
//! Each half of a block is an autodiff graph of its own. The forward pass keeps either the graphs or only the blocks'
//! inputs; the backward pass walks the blocks from the last to the first, building a graph again where only an
//! input was kept. At no time does one graph span the model.
//!
//! A decoder may be one slice of a model, whose other slices other ranks hold. Each half of a block then gives an addend of
//! the residual stream, and sends back an addend of its gradient: these are added up between the graphs, so that no graph
//! knows of other ranks.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use seedcorn_adapters::{Adapter, Projection};
use seedcorn_kernels::add::add;
use seedcorn_kernels::frozen::FrozenWeight;
use seedcorn_kernels::rms_norm::rms_norm;
use seedcorn_kernels::seed_gradient::seed_gradient;

use super::block::{Block, Leaves, Shared};
use super::gradients::Gradients;
use super::input::{Adapted, Input};
use super::loss::Loss;
use super::shards::{Pass, Shards, Walk};
use super::slice::Slice;
use super::spec::ModelSpec;
use crate::parallel::{ParallelError, Ranks, TensorRanks};

/// The sums over ranks of what their slices of half a block give, and of its input's gradients.
pub(crate) const ACTIVATIONS: &str = "activations";

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
    /// What this rank keeps, where several share the matrices above: those are empty but for the block at hand.
    pub(super) shards: Option<Shards>,
}

/// A decoder with the ranks that compute with it: where they hold it together, each call is one of all of them.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    pub(super) decoder: &'a Decoder,
    /// None where nobody else is asked.
    pub(super) ranks: Option<&'a Ranks<'a>>,
    /// The optimizer step that calls of other ranks belong to.
    pub(super) step: u64,
}

/// Why a decoder without ranks has no error.
pub(super) const WHOLE: &str = "one rank holds the whole model and asks no other";

/// What the forward pass keeps of one block for the backward pass.
enum Kept {
    /// The block's input: both halves are computed again.
    Input(Box<Tensor<2>>),
    /// The block's input, and the feed-forward half where its graph is hardly more than that half's input.
    FeedForward(Box<(Tensor<2>, Graph)>),
    /// Both halves.
    Graphs(Box<[Graph; 2]>),
}

/// The autodiff graph of half a block: its input leaf, its factor leaves and its output.
struct Graph {
    x: Tensor<2>,
    leaves: Leaves,
    y: Tensor<2>,
    /// Whether the input also reaches the output past the graph, as an addend.
    residual: bool,
}

impl Decoder {
    /// Returns the device that the model's tensors are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns which slice of the model this is.
    pub fn slice(&self) -> Slice {
        self.slice
    }

    /// Whether this rank holds the whole model, and computes with it alone.
    pub(crate) fn is_whole(&self) -> bool {
        self.shards.is_none() && !self.slice.is_part()
    }

    /// Returns which rows of the whole embedding and head are those of this slice.
    pub(super) fn vocabulary(&self) -> Range<usize> {
        self.slice.vocabulary(&self.spec)
    }

    /// Returns the linear layers of all blocks, in the order in which they are applied.
    pub fn projections(&self) -> impl Iterator<Item = &Projection> {
        self.blocks.iter().flat_map(Block::projections)
    }

    /// Returns the bytes that the frozen weights take; where ranks share them, those of this one.
    pub fn weight_bytes(&self) -> usize {
        if let Some(shards) = &self.shards {
            return shards.bytes();
        }
        let head = if self.spec.tie_word_embeddings { 0 } else { self.head.bytes() };
        let blocks = self.projections().map(|projection| projection.weight.bytes());
        self.embed.bytes() + head + blocks.sum::<usize>()
    }

    /// As [`Model::loss_sum`], of a decoder that one rank holds.
    ///
    /// # Panics
    /// When other ranks hold a part.
    pub fn loss_sum(&self, input: &Input, adapter: Option<&Adapter>) -> f64 {
        Model::from(self).loss_sum(input, adapter).expect(WHOLE)
    }

    /// As [`Model::logits`], of a decoder that one rank holds.
    ///
    /// # Panics
    /// When other ranks hold a part.
    pub fn logits(&self, input: &Input, adapter: Option<&Adapter>) -> Tensor<2> {
        Model::from(self).logits(input, adapter).expect(WHOLE)
    }

    /// As [`Model::loss_and_gradients`], of a decoder that one rank holds.
    ///
    /// # Panics
    /// When other ranks hold a part.
    pub fn loss_and_gradients(
        &self,
        input: &Input,
        adapter: &Adapter,
        dropout: Option<seedcorn_adapters::DropoutPlan>,
        kept_blocks: usize,
    ) -> (f64, Gradients) {
        let model = Model::from(self);
        let (loss, gradients) = model.loss_and_gradients(input, adapter, dropout, kept_blocks).expect(WHOLE);
        (loss.value(), gradients)
    }

    pub(super) fn normed(&self, x_td: Tensor<2>) -> Tensor<2> {
        rms_norm(x_td, self.norm.clone(), self.spec.rms_norm_eps)
    }

    /// Builds the graph of a block's first half on an input that is a leaf. Nothing trains below the first block.
    fn attention_graph(&self, layer: usize, x: Tensor<2>, input: &Input, adapted: Adapted) -> Graph {
        let x = if layer == 0 { x.autodiff() } else { x.autodiff().require_grad() };
        let mut leaves = Vec::new();
        let y = self.blocks[layer].attention_half(x.clone(), input, &self.shared, adapted, &mut leaves);
        Graph { x, leaves, y, residual: true }
    }

    /// Builds the graph of a block's second half on an input that is a leaf.
    fn feed_forward_graph(&self, layer: usize, x: Tensor<2>, adapted: Adapted) -> Graph {
        let x = x.autodiff().require_grad();
        let mut leaves = Vec::new();
        let y = self.blocks[layer].feed_forward_half(x.clone(), adapted, &mut leaves);
        Graph { x, leaves, y, residual: false }
    }
}

impl<'a> From<&'a Decoder> for Model<'a> {
    fn from(decoder: &'a Decoder) -> Self {
        Self { decoder, ranks: None, step: 0 }
    }
}

impl<'a> Model<'a> {
    /// Takes the decoder of a rank.
    pub fn new(decoder: &'a Decoder, ranks: &'a Ranks<'a>) -> Self {
        Self { decoder, ranks: Some(ranks), step: 0 }
    }

    /// Returns the model as it is in an optimizer step, which errors name.
    #[must_use]
    pub fn at(self, step: u64) -> Self {
        Self { step, ..self }
    }

    /// Returns the ranks that hold the other slices of the model.
    ///
    /// # Panics
    /// When this is a slice, and there is no one to ask for the others.
    pub(super) fn tensor(self) -> TensorRanks<'a> {
        let ranks = match self.ranks {
            Some(ranks) => ranks.tensor(self.step),
            None => TensorRanks::alone(),
        };
        let asked = Slice { index: ranks.index(), of: ranks.size() };
        assert_eq!(self.decoder.slice, asked, "the ranks are those of the slices");
        ranks
    }

    /// Sends `dy` back through half a block: takes the factors' gradients, returns `dx`. The norm that a half begins with
    /// is the same on every rank, and linear in what comes back, so that what slices give is added up behind it.
    fn sent_back(
        self,
        graph: Graph,
        dy: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Result<Tensor<2>, ParallelError> {
        let residual = graph.residual;
        let Some(dx) = graph.backward(&dy, gradients) else { return Ok(dy) };
        let dx = self.summed(ACTIVATIONS, dx)?;
        Ok(if residual { add(dx, dy) } else { dx })
    }

    /// Adds up what slices give.
    pub(super) fn summed(self, op: &'static str, addend: Tensor<2>) -> Result<Tensor<2>, ParallelError> {
        let ranks = self.tensor();
        if ranks.size() == 1 {
            return Ok(addend);
        }
        let shape = addend.dims();
        let sum = ranks.sum(op, values(addend))?;
        Ok(Tensor::from_data(TensorData::new(sum, shape), &self.decoder.device))
    }

    /// Returns the decoder.
    pub fn decoder(self) -> &'a Decoder {
        self.decoder
    }

    /// Computes the sum of the token losses and its gradient with respect to every factor of the adapter. The last
    /// `kept_blocks` blocks keep their graphs, the others their inputs; the bits are the same for any number. On a device
    /// nothing is waited for.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn loss_and_gradients(
        self,
        input: &Input,
        adapter: &Adapter,
        dropout: Option<seedcorn_adapters::DropoutPlan>,
        kept_blocks: usize,
    ) -> Result<(Loss, Gradients), ParallelError> {
        let decoder = self.decoder;
        let adapted = Adapted { adapter: Some(adapter), dropout, tracked: true };
        let mut walk = Walk::new(self, Pass::Training)?;
        let (kept, x) = self.forward(&mut walk, input, adapted, kept_blocks)?;
        let (loss, mut dx) = self.head_loss(&mut walk, x, input)?;
        let mut gradients = Gradients::new(adapter.modules().len());
        for (layer, kept) in kept.into_iter().enumerate().rev() {
            walk.block(layer)?;
            let attention = |x| decoder.attention_graph(layer, x, input, adapted);
            let attention = match kept {
                Kept::Graphs(graphs) => {
                    let [attention, feed_forward] = *graphs;
                    dx = self.sent_back(feed_forward, dx, &mut gradients)?;
                    attention
                }
                Kept::FeedForward(kept) => {
                    let (x, feed_forward) = *kept;
                    dx = self.sent_back(feed_forward, dx, &mut gradients)?;
                    attention(x)
                }
                Kept::Input(x) => {
                    let attention = attention(*x);
                    let inner = self.summed(ACTIVATIONS, attention.y.clone().inner())?;
                    let feed_forward = decoder.feed_forward_graph(layer, inner, adapted);
                    dx = self.sent_back(feed_forward, dx, &mut gradients)?;
                    attention
                }
            };
            walk.poll();
            dx = self.sent_back(attention, dx, &mut gradients)?;
        }
        walk.end();
        Ok((loss, gradients))
    }

    /// Runs the blocks and keeps what the backward pass needs; the output is that before the last norm.
    fn forward(
        self,
        walk: &mut Walk,
        input: &Input,
        adapted: Adapted,
        kept_blocks: usize,
    ) -> Result<(Vec<Kept>, Tensor<2>), ParallelError> {
        let decoder = self.decoder;
        let mut kept = Vec::with_capacity(decoder.blocks.len());
        let mut x = self.embedded(walk, &input.input_ids)?;
        for (layer, block) in decoder.blocks.iter().enumerate() {
            walk.block(layer)?;
            let constant = Adapted { tracked: false, ..adapted };
            if decoder.blocks.len() - layer <= kept_blocks {
                let attention = decoder.attention_graph(layer, x, input, adapted);
                let inner = self.summed(ACTIVATIONS, attention.y.clone().inner())?;
                walk.poll();
                let feed_forward = decoder.feed_forward_graph(layer, inner, adapted);
                x = self.summed(ACTIVATIONS, feed_forward.y.clone().inner())?;
                kept.push(Kept::Graphs(Box::new([attention, feed_forward])));
                continue;
            }
            let inner = block.attention_half(x.clone(), input, &decoder.shared, constant, &mut Vec::new());
            let inner = self.summed(ACTIVATIONS, inner)?;
            walk.poll();
            if block.feed_forward_is_light(input.input_ids.len(), adapted) {
                let feed_forward = decoder.feed_forward_graph(layer, inner, adapted);
                let y = self.summed(ACTIVATIONS, feed_forward.y.clone().inner())?;
                kept.push(Kept::FeedForward(Box::new((x, feed_forward))));
                x = y;
            } else {
                let y = block.feed_forward_half(inner, constant, &mut Vec::new());
                let y = self.summed(ACTIVATIONS, y)?;
                kept.push(Kept::Input(Box::new(x)));
                x = y;
            }
        }
        Ok((kept, x))
    }

    /// Goes through this rank's `own` of `items` things. Where ranks hold the model together, every rank makes as many
    /// passes as the one that has most to do, so that all get what they need.
    ///
    /// # Errors
    /// Those of `compute`, and [`ParallelError`].
    pub fn each<T>(
        self,
        own: &[T],
        items: usize,
        pass: Pass,
        mut compute: impl FnMut(&T) -> Result<(), ParallelError>,
    ) -> Result<(), ParallelError> {
        own.iter().try_for_each(&mut compute)?;
        let Some(shards) = &self.decoder.shards else { return Ok(()) };
        for _ in own.len()..items.div_ceil(shards.cut.count) {
            Walk::new(self, pass)?.serve()?;
        }
        Ok(())
    }

    /// Runs the blocks on whole segments: `[t, d]`, before the last norm.
    pub(super) fn hidden(
        self,
        walk: &mut Walk,
        input: &Input,
        adapted: Adapted,
    ) -> Result<Tensor<2>, ParallelError> {
        let mut x = self.embedded(walk, &input.input_ids)?;
        for (layer, block) in self.decoder.blocks.iter().enumerate() {
            walk.block(layer)?;
            x = block.attention_half(x, input, &self.decoder.shared, adapted, &mut Vec::new());
            x = self.summed(ACTIVATIONS, x)?;
            walk.poll();
            x = self.summed(ACTIVATIONS, block.feed_forward_half(x, adapted, &mut Vec::new()))?;
        }
        Ok(x)
    }
}

impl Graph {
    /// Sends `dy` back through the graph: hands over the factors' gradients, returns that of the input if it has one.
    fn backward(self, dy: &Tensor<2>, gradients: &mut Gradients) -> Option<Tensor<2>> {
        if self.leaves.is_empty() && !self.x.is_require_grad() {
            return None;
        }
        let mut grads = seed_gradient(self.y, dy.clone()).backward();
        for (place, part) in self.leaves {
            let factors = part.factors.expect("leaves are adapted parts");
            let a = factors.a.grad_remove(&mut grads).expect("every factor is in the graph");
            let b = factors.b.grad_remove(&mut grads).expect("every factor is in the graph");
            gradients.set(place, [a, b]);
        }
        self.x.grad_remove(&mut grads)
    }
}

/// Reads a tensor's values back.
pub(super) fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("activations are f32")
}
