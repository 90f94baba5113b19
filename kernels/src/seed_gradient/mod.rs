//! Starts a backward pass at a tensor whose gradient is known.
//!
//! The decoder's blocks are separate autodiff graphs (so that a block can be recomputed, gathered or sent
//! away alone). The gradient that the block above produced enters the graph below here: the result is a
//! scalar whose derivative with respect to `y` is `dy`, and no product of the two is computed.

#[cfg(feature = "cube")]
mod cubecl;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::flex::tensor;

/// The backend's side of the op.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cube"))]
pub trait SeedGradientBackend: Backend {
    /// See [`seed_gradient`].
    fn seed_gradient(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Returns a scalar tensor `[1]` whose `backward()` gives `y` the gradient `dy`.
///
/// # Shapes
/// - `y`, `dy`: `[rows, cols]`; `dy` is on the inner device.
pub fn seed_gradient(y: Tensor<2>, dy: Tensor<2>) -> Tensor<1> {
    assert_eq!(y.dims(), dy.dims(), "a tensor and its gradient have one shape");
    Tensor::from_dispatch(Dispatch::seed_gradient(y.into_dispatch(), dy.into_dispatch()))
}

impl SeedGradientBackend for Flex {
    fn seed_gradient(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        tensor(vec![0.0], [1])
    }
}

#[derive(Debug)]
struct SeedGradientBackward;

impl<B: SeedGradientBackend> Backward<B, 1> for SeedGradientBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, ops.state);
        }
    }
}

impl<B: SeedGradientBackend, C: CheckpointStrategy> SeedGradientBackend for Autodiff<B, C> {
    fn seed_gradient(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let prepared = SeedGradientBackward.prepare::<C>([y.node()]);
        let (y, dy) = (y.into_primitive(), dy.into_primitive());
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(dy.clone(), B::seed_gradient(y, dy)),
            OpsKind::UnTracked(prepared) => prepared.finish(B::seed_gradient(y, dy)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_gradient_arrives_unchanged() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device).autodiff().require_grad();
        let dy = Tensor::<2>::from_floats([[0.5, -1.0], [0.25, 8.0]], &device);
        let mut grads = seed_gradient(x.clone().mul_scalar(2.0), dy).backward();
        let dx = x.grad_remove(&mut grads).expect("x is tracked").into_data();
        assert_eq!(dx.try_to_vec::<f32>().unwrap(), [1.0, -2.0, 0.5, 16.0]);
    }
}
