//! The op in Burn's autodiff graph: it keeps its input, the factors and the low-rank products.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use super::{Autodiff, Config, FloatTensor, GatedMlpBackend, INPUTS, Inputs};

#[derive(Debug)]
struct GatedMlpBackward;

impl<B: GatedMlpBackend> Backward<B, INPUTS> for GatedMlpBackward {
    type State = (Inputs<B>, FloatTensor<B>, Config);

    fn backward(self, ops: Ops<Self::State, INPUTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (inputs, kept, config) = ops.state;
        let [x, _, factors @ ..] = ops.parents;
        let gradients = B::gated_mlp_backward(dy, kept, inputs, config);
        for (parent, gradient) in [x].into_iter().chain(factors).zip(gradients) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: GatedMlpBackend, C: CheckpointStrategy> GatedMlpBackend for Autodiff<B, C> {
    fn gated_mlp(inputs: Inputs<Self>, config: Config) -> FloatTensor<Self> {
        let inputs = inputs.into_array();
        let nodes = inputs.each_ref().map(FloatTensor::<Self>::node);
        let inputs = Inputs::from(inputs.map(FloatTensor::<Self>::into_primitive));
        match GatedMlpBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (y, kept) = B::gated_mlp_forward(inputs.clone(), config.clone());
                prepared.finish((inputs, kept, config), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::gated_mlp(inputs, config)),
        }
    }

    fn gated_mlp_forward(_: Inputs<Self>, _: Config) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("what is kept is computed on the inner backend")
    }

    fn gated_mlp_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Inputs<Self>,
        _: Config,
    ) -> Vec<FloatTensor<Self>> {
        unreachable!("backward runs on the inner backend; there is no second derivative")
    }
}
