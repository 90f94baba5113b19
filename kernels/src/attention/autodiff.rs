//! Autodiff wiring: keeps `qkv`, the output and the log-sum-exp.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, tensor::FloatTensor};

use super::{AttentionBackend, AttentionConfig, QkvLayout};

#[derive(Debug)]
struct AttentionGrad;

/// What the backward pass needs.
#[derive(Debug, Clone)]
struct Saved<T> {
    qkv: T,
    out: T,
    lse: T,
    layout: QkvLayout,
    segments: Arc<[u32]>,
    cfg: AttentionConfig,
}

impl<B: AttentionBackend> Backward<B, 1> for AttentionGrad {
    type State = Saved<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let d_out = grads.consume::<B>(&ops.node);
        let Saved { qkv, out, lse, layout, segments, cfg } = ops.state;
        if let Some(node) = parent {
            let dqkv = B::packed_attention_backward(qkv, out, lse, d_out, layout, segments, cfg);
            grads.register::<B>(node.id, dqkv);
        }
    }
}

impl<B: AttentionBackend, C: CheckpointStrategy> AttentionBackend for Autodiff<B, C> {
    fn packed_attention(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        segments: Arc<[u32]>,
        cfg: AttentionConfig,
    ) -> FloatTensor<Self> {
        match AttentionGrad.prepare::<C>([qkv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let qkv = qkv.into_primitive();
                let (out, lse) = B::packed_attention_forward(qkv.clone(), layout, segments.clone(), cfg);
                prep.finish(Saved { qkv, out: out.clone(), lse, layout, segments, cfg }, out)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::packed_attention(qkv.into_primitive(), layout, segments, cfg))
            }
        }
    }

    fn packed_attention_forward(
        _: FloatTensor<Self>,
        _: QkvLayout,
        _: Arc<[u32]>,
        _: AttentionConfig,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("the log-sum-exp is made and used on the inner backend only")
    }

    fn packed_attention_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: QkvLayout,
        _: Arc<[u32]>,
        _: AttentionConfig,
    ) -> FloatTensor<Self> {
        unreachable!("gradients are computed on the inner backend; second derivatives are not offered")
    }
}
