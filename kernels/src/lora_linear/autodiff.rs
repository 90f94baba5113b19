//! The op in Burn's autodiff graph: it keeps its input, the factors and the low-rank product, nothing of the size
//! of a weight.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use super::{Autodiff, FloatTensor, Group, INPUTS, Inputs, LoraLinearBackend};

#[derive(Debug)]
struct LoraLinearBackward;

impl<B: LoraLinearBackend> Backward<B, INPUTS> for LoraLinearBackward {
    type State = (Inputs<B>, FloatTensor<B>, Group);

    fn backward(self, ops: Ops<Self::State, INPUTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (inputs, kept, group) = ops.state;
        let [x, residual, factors @ ..] = ops.parents;
        let gradients = B::lora_linear_backward(dy.clone(), kept, inputs, group, x.is_some());
        if let Some(node) = residual {
            grads.register::<B>(node.id, dy);
        }
        for (parent, gradient) in [x].into_iter().chain(factors).zip(gradients) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: LoraLinearBackend, C: CheckpointStrategy> LoraLinearBackend for Autodiff<B, C> {
    fn lora_linear(inputs: Inputs<Self>, group: Group) -> FloatTensor<Self> {
        let inputs = inputs.into_array();
        let nodes = inputs.each_ref().map(FloatTensor::<Self>::node);
        let inputs = Inputs::from(inputs.map(FloatTensor::<Self>::into_primitive));
        match LoraLinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (y, kept) = B::lora_linear_forward(inputs.clone(), group.clone());
                // The residual is not read again: something small stands in its place.
                let inputs = Inputs { residual: kept.clone(), ..inputs };
                prepared.finish((inputs, kept, group), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::lora_linear(inputs, group)),
        }
    }

    fn lora_linear_forward(_: Inputs<Self>, _: Group) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("what is kept is computed on the inner backend")
    }

    fn lora_linear_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Inputs<Self>,
        _: Group,
        _: bool,
    ) -> Vec<FloatTensor<Self>> {
        unreachable!("backward runs on the inner backend; there is no second derivative")
    }
}
