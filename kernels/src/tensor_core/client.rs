//! A GPU behind CubeCL as what runs kernels. Not run on one yet: what is proven in the interpreter is everything up to
//! these launches.

use std::convert::Infallible;

use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim};
use burn_cubecl::tensor::CubeTensor;
use cubecl_core::ir::features::MmaConfig;
use cubecl_core::ir::{ElemType, FloatKind};

use super::{Body, Device, Launch};
use crate::attention::tensor_core::delta::attention_delta;
use crate::attention::tensor_core::forward::attention_forward;
use crate::attention::tensor_core::keys::attention_keys;
use crate::attention::tensor_core::mask::NumbersLaunch;
use crate::attention::tensor_core::queries::attention_queries;
use crate::gpu::Words;
use crate::linear_cross_entropy::tensor_core::rows::{loss_gather, loss_gradient, loss_rows, loss_sum};
use crate::lora_linear::tensor_core::finish::sum_parts;
use crate::lora_linear::tensor_core::number::MaskLaunch;
use crate::lora_linear::tensor_core::product::{PlacesLaunch, tensor_product};

/// A GPU with the matrix units that the kernels need.
pub(crate) struct Gpu<'a>(&'a Client);

impl<'a> Gpu<'a> {
    /// The device of a tensor, if it has bf16 matrix units in the shapes that kernels use, and room for their tiles.
    pub(crate) fn of(tensor: &'a CubeTensor) -> Option<Self> {
        let properties = tensor.client.properties();
        let (bf16, f32) = (ElemType::Float(FloatKind::BF16), ElemType::Float(FloatKind::F32));
        let unit = MmaConfig { a_type: bf16, b_type: bf16, cd_type: f32, m: 16, n: 16, k: 16 };
        let (hardware, matmul) = (&properties.hardware, &properties.features.matmul);
        let fits = matmul.cmma.contains(&unit)
            && matmul.mma.contains(&MmaConfig { n: 8, ..unit })
            && matmul.ldmatrix.contains(&bf16)
            && (hardware.plane_size_min, hardware.plane_size_max) == (32, 32)
            && hardware.max_shared_memory_size >= 99 * 1024;
        fits.then_some(Self(&tensor.client))
    }
}

/// A result that cannot be an error.
pub(crate) fn sure<T>(result: Result<T, Infallible>) -> T {
    let Ok(value) = result;
    value
}

impl Device for Gpu<'_> {
    type Buffer = Words;
    type Error = Infallible;

    fn upload(&mut self, bytes: &[u8]) -> Words {
        let handle = self.0.create_from_slice(if bytes.is_empty() { &[0; 4] } else { bytes });
        Words { handle, len: (bytes.len() / 4).max(1) }
    }

    fn reserve(&mut self, bytes: usize) -> Words {
        Words { handle: self.0.empty(bytes.max(4)), len: (bytes / 4).max(1) }
    }

    fn multiprocessors(&self) -> usize {
        self.0.properties().hardware.num_streaming_multiprocessors.unwrap_or(1) as usize
    }

    #[expect(unsafe_code, reason = "launches without CubeCL's checks of every index")]
    fn launch(&mut self, launch: &Launch<Words>) -> Result<(), Infallible> {
        let [x, y, z] = launch.cubes;
        let (cubes, units) = (CubeCount::Static(x, y, z), CubeDim::new_1d(launch.kernel.units() as u32));
        let (client, words, floats) = (self.0, launch.words, launch.floats);
        let at = |place: usize| launch.buffers[place].arg();
        let numbers = || NumbersLaunch::new(words[0], words[1], words[2], words[3], floats[0], floats[1]);
        // SAFETY: the host side of each op makes its buffers for the sizes that it launches with; the interpreter, which
        // faults on every access outside of a buffer, has run the same launches.
        unsafe {
            match launch.kernel.0 {
                Body::Product(plan) => tensor_product::launch_unchecked(
                    client,
                    cubes,
                    units,
                    at(0),
                    at(1),
                    at(2),
                    at(3),
                    at(4),
                    at(5),
                    at(6),
                    at(7),
                    places(words, floats),
                    MaskLaunch::new(words[17], words[18], floats[1], floats[2]),
                    plan,
                ),
                Body::SumParts => {
                    sum_parts::launch_unchecked(client, cubes, units, at(0), at(1), words[0], words[1]);
                }
                Body::AttentionForward(plan) => attention_forward::launch_unchecked(
                    client,
                    cubes,
                    units,
                    at(0),
                    at(1),
                    at(2),
                    at(3),
                    numbers(),
                    plan,
                ),
                Body::AttentionDelta => attention_delta::launch_unchecked(
                    client,
                    cubes,
                    units,
                    at(0),
                    at(1),
                    at(2),
                    words[0],
                    words[1],
                ),
                Body::AttentionQueries(plan) => attention_queries::launch_unchecked(
                    client,
                    cubes,
                    units,
                    at(0),
                    at(1),
                    at(2),
                    at(3),
                    at(4),
                    at(5),
                    numbers(),
                    plan,
                ),
                Body::AttentionKeys(plan) => attention_keys::launch_unchecked(
                    client,
                    cubes,
                    units,
                    at(0),
                    at(1),
                    at(2),
                    at(3),
                    at(4),
                    at(5),
                    numbers(),
                    plan,
                ),
                Body::LossGather => loss_gather::launch_unchecked(
                    client,
                    cubes,
                    units,
                    at(0),
                    at(1),
                    at(2),
                    words[0],
                    words[1],
                ),
                Body::LossRows => loss_rows::launch_unchecked(
                    client,
                    cubes,
                    units,
                    at(0),
                    at(1),
                    at(2),
                    at(3),
                    words[0],
                    words[1],
                    words[2],
                ),
                Body::LossSum => {
                    loss_sum::launch_unchecked(client, cubes, units, at(0), at(1), words[0]);
                }
                Body::LossGradient(kind) => loss_gradient::launch_unchecked(
                    client,
                    cubes,
                    units,
                    at(0),
                    at(1),
                    at(2),
                    at(3),
                    at(4),
                    at(5),
                    at(6),
                    words[0],
                    words[1],
                    words[2],
                    kind,
                ),
            }
        }
        Ok(())
    }
}

/// The sizes and places of a product, in the order in which its host side lists them.
fn places(words: &[u32], floats: &[f32]) -> PlacesLaunch {
    let at = |place: usize| words[place];
    PlacesLaunch::new(
        at(0),
        at(1),
        at(2),
        at(3),
        at(4),
        at(5),
        at(6),
        at(7),
        at(8),
        at(9),
        at(10),
        at(11),
        at(12),
        at(13),
        at(14),
        at(15),
        at(16),
        floats[0],
    )
}
