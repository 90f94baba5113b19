//! Autodiff wiring: keeps `gate_up` only.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, tensor::FloatTensor};

use super::{GatedActBackend, GatedKind};

#[derive(Debug)]
struct GatedActGrad;

impl<B: GatedActBackend> Backward<B, 1> for GatedActGrad {
    type State = (FloatTensor<B>, GatedKind);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let (gate_up, kind) = ops.state;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::gated_act_backward(gate_up, dy, kind));
        }
    }
}

impl<B: GatedActBackend, C: CheckpointStrategy> GatedActBackend for Autodiff<B, C> {
    fn gated_act(gate_up: FloatTensor<Self>, kind: GatedKind) -> FloatTensor<Self> {
        match GatedActGrad.prepare::<C>([gate_up.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let gate_up = gate_up.into_primitive();
                let y = B::gated_act(gate_up.clone(), kind);
                prep.finish((gate_up, kind), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::gated_act(gate_up.into_primitive(), kind)),
        }
    }

    fn gated_act_backward(_: FloatTensor<Self>, _: FloatTensor<Self>, _: GatedKind) -> FloatTensor<Self> {
        unreachable!("gradients are computed on the inner backend; second derivatives are not offered")
    }
}
