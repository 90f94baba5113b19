//! Autodiff wiring: tracks `qkv`, keeps `qkv` and the weights.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, tensor::FloatTensor};

use super::QkNormBackend;
use crate::attention::QkvLayout;

#[derive(Debug)]
struct QkNormGrad;

impl<B: QkNormBackend> Backward<B, 1> for QkNormGrad {
    type State = ([FloatTensor<B>; 3], QkvLayout, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let ([qkv, q_weight, k_weight], layout, eps) = ops.state;
        if let Some(node) = parent {
            let dqkv = B::qk_norm_backward(qkv, q_weight, k_weight, dy, layout, eps);
            grads.register::<B>(node.id, dqkv);
        }
    }
}

impl<B: QkNormBackend, C: CheckpointStrategy> QkNormBackend for Autodiff<B, C> {
    fn qk_norm(
        qkv: FloatTensor<Self>,
        q_weight: FloatTensor<Self>,
        k_weight: FloatTensor<Self>,
        layout: QkvLayout,
        eps: f32,
    ) -> FloatTensor<Self> {
        let (q_weight, k_weight) = (q_weight.into_primitive(), k_weight.into_primitive());
        match QkNormGrad.prepare::<C>([qkv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let qkv = qkv.into_primitive();
                let y = B::qk_norm(qkv.clone(), q_weight.clone(), k_weight.clone(), layout, eps);
                prep.finish(([qkv, q_weight, k_weight], layout, eps), y)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::qk_norm(qkv.into_primitive(), q_weight, k_weight, layout, eps))
            }
        }
    }

    fn qk_norm_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: QkvLayout,
        _: f32,
    ) -> FloatTensor<Self> {
        unreachable!("gradients are computed on the inner backend; second derivatives are not offered")
    }
}
