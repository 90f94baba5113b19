//! Forward and backward through a decoder, together with the ranks that hold its other slices.
//!
//! Each half of a block gives an addend of the residual stream, and sends back an addend of its gradient: these are added
//! up between the graphs, so that no graph knows of other ranks. The norm of a half sees the whole stream on every rank,
//! and its derivative is linear in what comes back, so adding up after it is right.

use burn::tensor::{Tensor, TensorData};
use seedcorn_adapters::{Adapter, DropoutPlan};
use seedcorn_kernels::add::add;
use seedcorn_kernels::seed_gradient::seed_gradient;

use super::block::Leaves;
use super::decoder::Decoder;
use super::gradients::Gradients;
use super::input::{Adapted, Input};
use crate::parallel::{ParallelError, TensorRanks};

/// The sums over ranks of what their slices of half a block give, and of its input's gradients.
pub(crate) const ACTIVATIONS: &str = "activations";

pub(super) type Result<T> = std::result::Result<T, ParallelError>;

/// A decoder and the ranks that hold its other slices, which make the same calls with the same input.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    pub(super) model: &'a Decoder,
    pub(super) ranks: TensorRanks<'a>,
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

impl Pass<'_> {
    /// Returns the decoder.
    pub fn model(&self) -> &Decoder {
        self.model
    }

    /// Computes the sum of the token losses and its gradient with respect to every factor of this rank's slice. The last
    /// `kept_blocks` blocks keep their graphs, the others their inputs; the bits are the same for any number.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn loss_and_gradients(
        &self,
        input: &Input,
        adapter: &Adapter,
        dropout: Option<DropoutPlan>,
        kept_blocks: usize,
    ) -> Result<(f64, Gradients)> {
        let adapted = Adapted { adapter: Some(adapter), dropout, tracked: true };
        let (kept, x) = self.forward(input, adapted, kept_blocks)?;
        let (loss, mut dx) = self.head_loss(x, input)?;
        let mut gradients = Gradients::new(adapter.modules().len());
        for (layer, kept) in kept.into_iter().enumerate().rev() {
            let attention = |x| self.attention_graph(layer, x, input, adapted);
            let (feed_forward, attention) = match kept {
                Kept::Graphs(graphs) => {
                    let [attention, feed_forward] = *graphs;
                    (feed_forward, attention)
                }
                Kept::FeedForward(kept) => {
                    let (x, feed_forward) = *kept;
                    dx = self.sent_back(feed_forward, dx, &mut gradients)?;
                    dx = self.sent_back(attention(x), dx, &mut gradients)?;
                    continue;
                }
                Kept::Input(x) => {
                    let attention = attention(*x);
                    let inner = self.summed(ACTIVATIONS, attention.y.clone().inner())?;
                    (self.feed_forward_graph(layer, inner, adapted), attention)
                }
            };
            dx = self.sent_back(feed_forward, dx, &mut gradients)?;
            dx = self.sent_back(attention, dx, &mut gradients)?;
        }
        Ok((loss, gradients))
    }

    /// Runs the blocks and keeps what the backward pass needs; the output is that before the last norm.
    fn forward(&self, input: &Input, adapted: Adapted, kept_blocks: usize) -> Result<(Vec<Kept>, Tensor<2>)> {
        let constant = Adapted { tracked: false, ..adapted };
        let blocks = &self.model.blocks;
        let mut kept = Vec::with_capacity(blocks.len());
        let mut x = self.embedded(&input.input_ids)?;
        for (layer, block) in blocks.iter().enumerate() {
            if blocks.len() - layer <= kept_blocks {
                let attention = self.attention_graph(layer, x, input, adapted);
                let inner = self.summed(ACTIVATIONS, attention.y.clone().inner())?;
                let feed_forward = self.feed_forward_graph(layer, inner, adapted);
                x = self.summed(ACTIVATIONS, feed_forward.y.clone().inner())?;
                kept.push(Kept::Graphs(Box::new([attention, feed_forward])));
                continue;
            }
            let inner = self.attended(layer, x.clone(), input, constant)?;
            let (y, one) = if block.feed_forward_is_light(input.input_ids.len(), adapted) {
                let feed_forward = self.feed_forward_graph(layer, inner, adapted);
                let y = self.summed(ACTIVATIONS, feed_forward.y.clone().inner())?;
                (y, Kept::FeedForward(Box::new((x, feed_forward))))
            } else {
                (self.fed_forward(layer, inner, constant)?, Kept::Input(Box::new(x)))
            };
            kept.push(one);
            x = y;
        }
        Ok((kept, x))
    }

    /// Runs the blocks on whole segments: `[t, d]`, before the last norm.
    pub(super) fn hidden(&self, input: &Input, adapted: Adapted) -> Result<Tensor<2>> {
        let blocks = 0..self.model.blocks.len();
        blocks.into_iter().try_fold(self.embedded(&input.input_ids)?, |x, layer| {
            let inner = self.attended(layer, x, input, adapted)?;
            self.fed_forward(layer, inner, adapted)
        })
    }

    /// The first half of a block, outside of any graph.
    fn attended(&self, layer: usize, x: Tensor<2>, input: &Input, adapted: Adapted) -> Result<Tensor<2>> {
        let model = self.model;
        let y = model.blocks[layer].attention_half(x, input, &model.shared, adapted, &mut Vec::new());
        self.summed(ACTIVATIONS, y)
    }

    /// The second half of a block, outside of any graph.
    pub(super) fn fed_forward(&self, layer: usize, x: Tensor<2>, adapted: Adapted) -> Result<Tensor<2>> {
        let y = self.model.blocks[layer].feed_forward_half(x, adapted, &mut Vec::new());
        self.summed(ACTIVATIONS, y)
    }

    /// Builds the graph of a block's first half on an input that is a leaf. Nothing trains below the first block.
    fn attention_graph(&self, layer: usize, x: Tensor<2>, input: &Input, adapted: Adapted) -> Graph {
        let model = self.model;
        let x = if layer == 0 { x.autodiff() } else { x.autodiff().require_grad() };
        let mut leaves = Vec::new();
        let y = model.blocks[layer].attention_half(x.clone(), input, &model.shared, adapted, &mut leaves);
        Graph { x, leaves, y, residual: true }
    }

    /// Builds the graph of a block's second half on an input that is a leaf.
    fn feed_forward_graph(&self, layer: usize, x: Tensor<2>, adapted: Adapted) -> Graph {
        let x = x.autodiff().require_grad();
        let mut leaves = Vec::new();
        let y = self.model.blocks[layer].feed_forward_half(x.clone(), adapted, &mut leaves);
        Graph { x, leaves, y, residual: false }
    }

    /// Sends `dy` back through half a block: takes the factors' gradients, returns `dx`.
    fn sent_back(&self, graph: Graph, dy: Tensor<2>, gradients: &mut Gradients) -> Result<Tensor<2>> {
        let residual = graph.residual;
        let Some(dx) = graph.backward(&dy, gradients) else { return Ok(dy) };
        let dx = self.summed(ACTIVATIONS, dx)?;
        Ok(if residual { add(dx, dy) } else { dx })
    }

    /// Adds up what the slices give.
    pub(super) fn summed(&self, op: &'static str, addend: Tensor<2>) -> Result<Tensor<2>> {
        if self.ranks.size() == 1 {
            return Ok(addend);
        }
        let shape = addend.dims();
        let sum = self.ranks.sum(op, values(addend))?;
        Ok(Tensor::from_data(TensorData::new(sum, shape), &self.model.device))
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
