//! The decoder: embedding, blocks, norm, head; its loss, its gradients, its logits.
//!
//! Each half of a block is an autodiff graph of its own. The forward pass keeps either the graphs or only the blocks'
//! inputs; the backward pass walks the blocks from the last to the first, building a graph again where only an
//! input was kept. At no time does one graph span the model.

use burn::tensor::{Device, Tensor, TensorData};
use seedcorn_adapters::{Adapter, Projection};
use seedcorn_kernels::add::add;
use seedcorn_kernels::frozen::FrozenWeight;
use seedcorn_kernels::linear_cross_entropy::{Sweep, linear_cross_entropy};
use seedcorn_kernels::lora_linear::{Part, lora_linear};
use seedcorn_kernels::rms_norm::rms_norm;
use seedcorn_kernels::seed_gradient::seed_gradient;

use super::block::{Block, Leaves, Shared};
use super::gradients::Gradients;
use super::input::{Adapted, Input};
use super::shards::{Pass, Shards, Walk};
use super::spec::ModelSpec;
use crate::parallel::{ParallelError, Ranks};

/// A causal language model with frozen weights.
#[derive(Debug)]
pub struct Decoder {
    /// The architecture.
    pub spec: ModelSpec,
    pub(super) device: Device,
    /// `[vocab, d]`.
    pub(super) embed: FrozenWeight,
    pub(super) blocks: Vec<Block>,
    pub(super) shared: Shared,
    /// `[d]`.
    pub(super) norm: Tensor<1>,
    /// `[vocab, d]`; the embedding itself where they are tied.
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
        Model::from(self).loss_and_gradients(input, adapter, dropout, kept_blocks).expect(WHOLE)
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

    /// Returns the decoder.
    pub fn decoder(self) -> &'a Decoder {
        self.decoder
    }

    /// Computes the sum of the token losses of a micro-batch.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn loss_sum(self, input: &Input, adapter: Option<&Adapter>) -> Result<f64, ParallelError> {
        let mut walk = Walk::new(self, Pass::Forward)?;
        let h = self.hidden(&mut walk, input, Adapted::evaluated(adapter))?;
        let normed = self.decoder.normed(h);
        let loss = if walk.is_apart() {
            self.sweep(&mut walk, normed, input, false)?.0
        } else {
            let loss = linear_cross_entropy(normed, &self.decoder.head, input.targets.clone());
            f64::from(loss.into_scalar::<f32>())
        };
        walk.end();
        Ok(loss)
    }

    /// Computes the logits of every token: `[t, vocab]`.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn logits(self, input: &Input, adapter: Option<&Adapter>) -> Result<Tensor<2>, ParallelError> {
        let mut walk = Walk::new(self, Pass::Forward)?;
        let h = self.hidden(&mut walk, input, Adapted::evaluated(adapter))?;
        self.head_logits(walk, h)
    }

    /// Computes the sum of the token losses and its gradient with respect to every factor of the adapter. The last
    /// `kept_blocks` blocks keep their graphs, the others their inputs; the bits are the same for any number.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn loss_and_gradients(
        self,
        input: &Input,
        adapter: &Adapter,
        dropout: Option<seedcorn_adapters::DropoutPlan>,
        kept_blocks: usize,
    ) -> Result<(f64, Gradients), ParallelError> {
        let decoder = self.decoder;
        let adapted = Adapted { adapter: Some(adapter), dropout, tracked: true };
        let mut kept = Vec::with_capacity(decoder.blocks.len());
        let mut walk = Walk::new(self, Pass::Training)?;
        let mut x = self.embedded(&walk, &input.input_ids)?;
        for (layer, block) in decoder.blocks.iter().enumerate() {
            walk.block(layer)?;
            let constant = Adapted { tracked: false, ..adapted };
            if decoder.blocks.len() - layer <= kept_blocks {
                let attention = decoder.attention_graph(layer, x, input, adapted);
                walk.poll();
                let feed_forward = decoder.feed_forward_graph(layer, attention.y.clone().inner(), adapted);
                x = feed_forward.y.clone().inner();
                kept.push(Kept::Graphs(Box::new([attention, feed_forward])));
                continue;
            }
            let inner = block.attention_half(x.clone(), input, &decoder.shared, constant, &mut Vec::new());
            walk.poll();
            if block.feed_forward_is_light(input.input_ids.len(), adapted) {
                let feed_forward = decoder.feed_forward_graph(layer, inner, adapted);
                let y = feed_forward.y.clone().inner();
                kept.push(Kept::FeedForward(Box::new((x, feed_forward))));
                x = y;
            } else {
                let y = block.feed_forward_half(inner, constant, &mut Vec::new());
                kept.push(Kept::Input(Box::new(x)));
                x = y;
            }
        }
        let (loss, mut dx) = self.head_loss(&mut walk, x, input)?;
        let mut gradients = Gradients::new(adapter.modules().len());
        for (layer, kept) in kept.into_iter().enumerate().rev() {
            walk.block(layer)?;
            let attention = |x| decoder.attention_graph(layer, x, input, adapted);
            let attention = match kept {
                Kept::Graphs(graphs) => {
                    let [attention, feed_forward] = *graphs;
                    dx = feed_forward.backward(dx, &mut gradients);
                    attention
                }
                Kept::FeedForward(kept) => {
                    let (x, feed_forward) = *kept;
                    dx = feed_forward.backward(dx, &mut gradients);
                    attention(x)
                }
                Kept::Input(x) => {
                    let attention = attention(*x);
                    let feed_forward =
                        decoder.feed_forward_graph(layer, attention.y.clone().inner(), adapted);
                    dx = feed_forward.backward(dx, &mut gradients);
                    attention
                }
            };
            walk.poll();
            dx = attention.backward(dx, &mut gradients);
        }
        walk.end();
        Ok((loss, gradients))
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
    fn hidden(self, walk: &mut Walk, input: &Input, adapted: Adapted) -> Result<Tensor<2>, ParallelError> {
        let mut x = self.embedded(walk, &input.input_ids)?;
        for (layer, block) in self.decoder.blocks.iter().enumerate() {
            walk.block(layer)?;
            x = block.attention_half(x, input, &self.decoder.shared, adapted, &mut Vec::new());
            walk.poll();
            x = block.feed_forward_half(x, adapted, &mut Vec::new());
        }
        Ok(x)
    }

    /// Looks up the embeddings of tokens: `[t, d]`.
    pub(super) fn embedded(self, walk: &Walk, input_ids: &[u32]) -> Result<Tensor<2>, ParallelError> {
        let d = self.decoder.spec.hidden_size;
        let mut x = vec![0.0f32; input_ids.len() * d];
        walk.embed(input_ids, &mut x)?;
        Ok(Tensor::from_data(TensorData::new(x, [input_ids.len(), d]), &self.decoder.device))
    }

    /// Ends a pass with logits.
    pub(super) fn head_logits(self, mut walk: Walk, x_td: Tensor<2>) -> Result<Tensor<2>, ParallelError> {
        let normed = self.decoder.normed(x_td);
        let of = |weight| lora_linear(normed.clone(), &[Part { weight, bias: None, factors: None }], None);
        if !walk.is_apart() {
            return Ok(of(self.decoder.head.clone()));
        }
        let ([tokens, _], vocab) = (normed.dims(), self.decoder.spec.vocab_size);
        let mut logits = vec![0.0f32; tokens * vocab];
        for range in 0..walk.head_ranges() {
            let (start, weight) = walk.head(range)?;
            let width = weight.shape()[0];
            let part = of(weight).into_data();
            let part = part.as_slice::<f32>().expect("activations are f32");
            for (out, row) in logits.chunks_exact_mut(vocab).zip(part.chunks_exact(width)) {
                out[start..start + width].copy_from_slice(row);
            }
        }
        walk.end();
        Ok(Tensor::from_data(TensorData::new(logits, [tokens, vocab]), &self.decoder.device))
    }

    /// Computes the loss and its gradient with respect to the last block's output.
    fn head_loss(
        self,
        walk: &mut Walk,
        x: Tensor<2>,
        input: &Input,
    ) -> Result<(f64, Tensor<2>), ParallelError> {
        let x = x.autodiff().require_grad();
        let normed = self.decoder.normed(x.clone());
        let (loss, mut grads) = if walk.is_apart() {
            let (loss, dy) = self.sweep(walk, normed.clone().inner(), input, true)?;
            let dy = TensorData::new(dy, normed.dims());
            (loss, seed_gradient(normed, Tensor::from_data(dy, &self.decoder.device)).backward())
        } else {
            let loss = linear_cross_entropy(normed, &self.decoder.head, input.targets.clone());
            (f64::from(loss.clone().inner().into_scalar::<f32>()), loss.backward())
        };
        Ok((loss, x.grad_remove(&mut grads).expect("the head's input is tracked")))
    }

    /// Sweeps a head that comes in ranges: the loss as the op rounds it, and its gradient.
    fn sweep(
        self,
        walk: &mut Walk,
        normed: Tensor<2>,
        input: &Input,
        gradient: bool,
    ) -> Result<(f64, Vec<f32>), ParallelError> {
        let head = &self.decoder.head;
        let h = normed.into_data();
        let h = h.as_slice::<f32>().expect("activations are f32");
        let mut sweep = Sweep::new(h, head.shape(), head.compute(), &input.targets, gradient);
        for range in 0..walk.head_ranges() {
            let (start, rows) = walk.head(range)?;
            sweep.take(start, &rows);
        }
        let (loss, dh) = sweep.finish();
        Ok((f64::from(loss as f32), dh))
    }
}

impl Graph {
    /// Sends `dy` back through the block: hands over the factors' gradients, returns `dx`.
    fn backward(self, dy: Tensor<2>, gradients: &mut Gradients) -> Tensor<2> {
        if self.leaves.is_empty() && !self.x.is_require_grad() {
            return dy;
        }
        let mut grads = seed_gradient(self.y, dy.clone()).backward();
        for (place, part) in self.leaves {
            let factors = part.factors.expect("leaves are adapted parts");
            let a = factors.a.grad_remove(&mut grads).expect("every factor is in the graph");
            let b = factors.b.grad_remove(&mut grads).expect("every factor is in the graph");
            gradients.set(place, [a, b]);
        }
        match self.x.grad_remove(&mut grads) {
            Some(dx) if self.residual => add(dx, dy),
            Some(dx) => dx,
            None => dy,
        }
    }
}
