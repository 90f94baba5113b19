//! Autodiff wiring: the rotation is linear, so nothing but its arguments is kept.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, tensor::FloatTensor};

use super::{RopeBackend, RopeTable};
use crate::attention::QkvLayout;

#[derive(Debug)]
struct RopeGrad;

impl<B: RopeBackend> Backward<B, 1> for RopeGrad {
    type State = (QkvLayout, Arc<[u32]>, RopeTable, bool);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let (layout, positions, table, inverse) = ops.state;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::rope(dy, layout, positions, table, !inverse));
        }
    }
}

impl<B: RopeBackend, C: CheckpointStrategy> RopeBackend for Autodiff<B, C> {
    fn rope(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        positions: Arc<[u32]>,
        table: RopeTable,
        inverse: bool,
    ) -> FloatTensor<Self> {
        let run = |qkv, positions, table| B::rope(qkv, layout, positions, table, inverse);
        match RopeGrad.prepare::<C>([qkv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let out = run(qkv.into_primitive(), positions.clone(), table.clone());
                prep.finish((layout, positions, table, inverse), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(run(qkv.into_primitive(), positions, table)),
        }
    }
}
