//! The op in Burn's autodiff graph: it keeps `dh`, computed in the forward sweep.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::Shape;

use super::{Autodiff, FloatTensor, LinearCrossEntropyBackend};
use crate::frozen::FrozenWeight;

#[derive(Debug)]
struct LinearCrossEntropyBackward;

impl<B: LinearCrossEntropyBackend> Backward<B, 1> for LinearCrossEntropyBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            let scale = B::float_reshape(dy, Shape::new([1, 1]));
            grads.register::<B>(node.id, B::float_mul(ops.state, scale));
        }
    }
}

impl<B: LinearCrossEntropyBackend, C: CheckpointStrategy> LinearCrossEntropyBackend for Autodiff<B, C> {
    fn linear_cross_entropy(
        h: FloatTensor<Self>,
        head: FrozenWeight,
        targets: Arc<[i32]>,
    ) -> FloatTensor<Self> {
        let prepared = LinearCrossEntropyBackward.prepare::<C>([h.node()]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (loss, dh) = B::linear_cross_entropy_with_gradient(h.into_primitive(), head, targets);
                prepared.finish(dh, loss)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::linear_cross_entropy(h.into_primitive(), head, targets))
            }
        }
    }

    fn linear_cross_entropy_with_gradient(
        _: FloatTensor<Self>,
        _: FrozenWeight,
        _: Arc<[i32]>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("the gradient is taken on the inner backend; there is no second derivative")
    }
}
