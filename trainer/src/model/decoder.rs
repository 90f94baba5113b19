//! The decoder: embedding, blocks, norm, head; its loss, its gradients, its logits.
//!
//! Each half of a block is an autodiff graph of its own. The forward pass keeps either the graphs or only the blocks'
//! inputs; the backward pass walks the blocks from the last to the first, building a graph again where only an
//! input was kept. At no time does one graph span the model.

use burn::tensor::{Device, Tensor};
use seedcorn_adapters::{Adapter, Projection};
use seedcorn_kernels::add::add;
use seedcorn_kernels::embedding::embedding;
use seedcorn_kernels::frozen::FrozenWeight;
use seedcorn_kernels::linear_cross_entropy::linear_cross_entropy;
use seedcorn_kernels::lora_linear::{Part, lora_linear};
use seedcorn_kernels::rms_norm::rms_norm;
use seedcorn_kernels::seed_gradient::seed_gradient;

use super::block::{Block, Leaves, Shared};
use super::gradients::Gradients;
use super::input::{Adapted, Input};
use super::spec::ModelSpec;

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
}

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

    /// Computes the sum of the token losses of a micro-batch.
    pub fn loss_sum(&self, input: &Input, adapter: Option<&Adapter>) -> f64 {
        let h = self.hidden(input, Adapted::evaluated(adapter));
        let loss = linear_cross_entropy(self.normed(h), &self.head, input.targets.clone());
        f64::from(loss.into_scalar::<f32>())
    }

    /// Computes the logits of every token: `[t, vocab]`.
    pub fn logits(&self, input: &Input, adapter: Option<&Adapter>) -> Tensor<2> {
        self.head_logits(self.hidden(input, Adapted::evaluated(adapter)))
    }

    /// Computes the sum of the token losses and its gradient with respect to every factor of the adapter. The last
    /// `kept_blocks` blocks keep their graphs, the others their inputs; the bits are the same for any number.
    pub fn loss_and_gradients(
        &self,
        input: &Input,
        adapter: &Adapter,
        dropout: Option<seedcorn_adapters::DropoutPlan>,
        kept_blocks: usize,
    ) -> (f64, Gradients) {
        let adapted = Adapted { adapter: Some(adapter), dropout, tracked: true };
        let mut kept = Vec::with_capacity(self.blocks.len());
        let mut x = self.embedded(&input.input_ids);
        for (layer, block) in self.blocks.iter().enumerate() {
            let attention = |x| self.attention_graph(layer, x, input, adapted);
            let constant = Adapted { tracked: false, ..adapted };
            if self.blocks.len() - layer <= kept_blocks {
                let attention = attention(x);
                let feed_forward = self.feed_forward_graph(layer, attention.y.clone().inner(), adapted);
                x = feed_forward.y.clone().inner();
                kept.push(Kept::Graphs(Box::new([attention, feed_forward])));
            } else if block.feed_forward_is_light(input.input_ids.len(), adapted) {
                let inner = block.attention_half(x.clone(), input, &self.shared, constant, &mut Vec::new());
                let feed_forward = self.feed_forward_graph(layer, inner, adapted);
                let y = feed_forward.y.clone().inner();
                kept.push(Kept::FeedForward(Box::new((x, feed_forward))));
                x = y;
            } else {
                let y = block.forward(x.clone(), input, &self.shared, constant, &mut Vec::new());
                kept.push(Kept::Input(Box::new(x)));
                x = y;
            }
        }
        let (loss, mut dx) = self.head_loss(x, input);
        let mut gradients = Gradients::new(adapter.modules().len());
        for (layer, kept) in kept.into_iter().enumerate().rev() {
            let attention = |x| self.attention_graph(layer, x, input, adapted);
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
                    let feed_forward = self.feed_forward_graph(layer, attention.y.clone().inner(), adapted);
                    dx = feed_forward.backward(dx, &mut gradients);
                    attention
                }
            };
            dx = attention.backward(dx, &mut gradients);
        }
        (loss, gradients)
    }

    /// Runs the blocks on whole segments: `[t, d]`, before the last norm.
    fn hidden(&self, input: &Input, adapted: Adapted) -> Tensor<2> {
        self.blocks.iter().fold(self.embedded(&input.input_ids), |x, block| {
            block.forward(x, input, &self.shared, adapted, &mut Vec::new())
        })
    }

    /// Looks up the embeddings of tokens: `[t, d]`.
    pub(super) fn embedded(&self, input_ids: &[u32]) -> Tensor<2> {
        embedding(&self.embed, input_ids, &self.device)
    }

    pub(super) fn head_logits(&self, x_td: Tensor<2>) -> Tensor<2> {
        let head = Part { weight: self.head.clone(), bias: None, factors: None };
        lora_linear(self.normed(x_td), &[head], None)
    }

    fn normed(&self, x_td: Tensor<2>) -> Tensor<2> {
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

    /// Computes the loss and its gradient with respect to the last block's output.
    fn head_loss(&self, x: Tensor<2>, input: &Input) -> (f64, Tensor<2>) {
        let x = x.autodiff().require_grad();
        let loss = linear_cross_entropy(self.normed(x.clone()), &self.head, input.targets.clone());
        let value = f64::from(loss.clone().inner().into_scalar::<f32>());
        let mut grads = loss.backward();
        (value, x.grad_remove(&mut grads).expect("the head's input is tracked"))
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
