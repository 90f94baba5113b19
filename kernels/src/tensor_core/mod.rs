//! Kernels of matrix units as ops launch them, whatever runs them: a GPU, or an interpreter of the compiled code.
//!
//! The host side of the ops is written against [`Device`], so that what is proven in the interpreter is what a GPU is
//! given.

#[cfg(feature = "cube")]
pub(crate) mod client;

use crate::attention::tensor_core as attention;
use crate::linear_cross_entropy::tensor_core::rows;
use crate::lora_linear::tensor_core as linear;

/// Units of a cube of [`Kernel::sum_parts`].
pub(crate) const SUM_UNITS: usize = 256;

/// What runs kernels.
pub trait Device {
    /// Memory of the device; clones share it.
    type Buffer: Clone;
    /// What can go wrong.
    type Error;

    /// Copies bytes to the device.
    fn upload(&mut self, bytes: &[u8]) -> Self::Buffer;

    /// Makes a buffer whose bytes are not set.
    fn reserve(&mut self, bytes: usize) -> Self::Buffer;

    /// Multiprocessors of the device: outputs are cut into at least as many tiles where that is possible.
    fn multiprocessors(&self) -> usize;

    /// Runs a kernel, after all that were launched before.
    ///
    /// # Errors
    /// Those of the device.
    fn launch(&mut self, launch: &Launch<Self::Buffer>) -> Result<(), Self::Error>;
}

/// A kernel with its arguments.
pub struct Launch<'a, B> {
    /// Which kernel.
    pub kernel: Kernel,
    /// Cubes along x, y and z.
    pub cubes: [u32; 3],
    /// Buffers in the order of the parameters.
    pub buffers: &'a [&'a B],
    /// Scalars of f32, in order.
    pub floats: &'a [f32],
    /// Scalars of u32, in order.
    pub words: &'a [u32],
}

/// A kernel, with all that it is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel(pub(crate) Body);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Body {
    Product(linear::Plan),
    SumParts,
    AttentionForward(attention::Plan),
    AttentionDelta,
    AttentionQueries(attention::Plan),
    AttentionKeys(attention::Plan),
    LossGather,
    LossRows,
    LossSum,
    LossGradient(linear::Kind),
}

impl Kernel {
    pub(crate) fn product(plan: linear::Plan) -> Self {
        Self(Body::Product(plan))
    }

    pub(crate) fn sum_parts() -> Self {
        Self(Body::SumParts)
    }

    pub(crate) fn attention_forward(plan: attention::Plan) -> Self {
        Self(Body::AttentionForward(plan))
    }

    pub(crate) fn attention_delta() -> Self {
        Self(Body::AttentionDelta)
    }

    pub(crate) fn attention_queries(plan: attention::Plan) -> Self {
        Self(Body::AttentionQueries(plan))
    }

    pub(crate) fn attention_keys(plan: attention::Plan) -> Self {
        Self(Body::AttentionKeys(plan))
    }

    pub(crate) fn loss_gather() -> Self {
        Self(Body::LossGather)
    }

    pub(crate) fn loss_rows() -> Self {
        Self(Body::LossRows)
    }

    pub(crate) fn loss_sum() -> Self {
        Self(Body::LossSum)
    }

    pub(crate) fn loss_gradient(kind: linear::Kind) -> Self {
        Self(Body::LossGradient(kind))
    }

    /// Returns the units of a cube.
    pub fn units(self) -> usize {
        match self.0 {
            Body::Product(plan) => plan.tile.units(),
            Body::SumParts => SUM_UNITS,
            Body::LossGather | Body::LossRows | Body::LossSum | Body::LossGradient(_) => rows::UNITS,
            Body::AttentionDelta => attention::delta::UNITS,
            Body::AttentionForward(plan) | Body::AttentionQueries(plan) | Body::AttentionKeys(plan) => {
                plan.tile.units()
            }
        }
    }

    /// Whether the kernel multiplies matrices.
    pub fn multiplies(self) -> bool {
        match self.0 {
            Body::Product(_)
            | Body::AttentionForward(_)
            | Body::AttentionQueries(_)
            | Body::AttentionKeys(_) => true,
            Body::SumParts
            | Body::AttentionDelta
            | Body::LossGather
            | Body::LossRows
            | Body::LossSum
            | Body::LossGradient(_) => false,
        }
    }
}
