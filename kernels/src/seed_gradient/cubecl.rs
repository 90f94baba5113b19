//! The op on CubeCL devices: a zero that stands for the scalar.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;

use super::SeedGradientBackend;
use crate::gpu;

impl SeedGradientBackend for CubeBackend {
    fn seed_gradient(y: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        // Nobody reads it: what counts is that it is at the end of the graph.
        gpu::empty_vector(&y, 1)
    }
}
