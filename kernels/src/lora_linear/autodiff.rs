//! The op in Burn's autodiff graph: it keeps its input and the factors, nothing of the size of a weight.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use super::{Autodiff, FloatTensor, Group, LoraLinearBackend};

/// `x`, `A0`, `B0`, `A1`, `B1`, `A2`, `B2`.
const PARENTS: usize = 7;

#[derive(Debug)]
struct LoraLinearBackward;

impl<B: LoraLinearBackend> Backward<B, PARENTS> for LoraLinearBackward {
    type State = ([FloatTensor<B>; PARENTS], Group);

    fn backward(self, ops: Ops<Self::State, PARENTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([x, a0, b0, a1, b1, a2, b2], group) = ops.state;
        let need_dx = ops.parents[0].is_some();
        let (dx, da0, db0, da1, db1, da2, db2) =
            B::lora_linear_backward(x, dy, a0, b0, a1, b1, a2, b2, group, need_dx);
        for (parent, grad) in ops.parents.into_iter().zip([dx, da0, db0, da1, db1, da2, db2]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: LoraLinearBackend, C: CheckpointStrategy> LoraLinearBackend for Autodiff<B, C> {
    fn lora_linear(
        x: FloatTensor<Self>,
        a0: FloatTensor<Self>,
        b0: FloatTensor<Self>,
        a1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        a2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
        group: Group,
    ) -> FloatTensor<Self> {
        let inputs = [x, a0, b0, a1, b1, a2, b2];
        let prepared = LoraLinearBackward.prepare::<C>(inputs.each_ref().map(FloatTensor::<Self>::node));
        let [x, a0, b0, a1, b1, a2, b2] = inputs.map(FloatTensor::<Self>::into_primitive);
        let y = B::lora_linear(
            x.clone(),
            a0.clone(),
            b0.clone(),
            a1.clone(),
            b1.clone(),
            a2.clone(),
            b2.clone(),
            group.clone(),
        );
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(([x, a0, b0, a1, b1, a2, b2], group), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn lora_linear_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Group,
        _: bool,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        unreachable!("backward runs on the inner backend; there is no second derivative")
    }
}
