//! The lookup as a CubeCL kernel: a unit takes an element.

use burn::backend::Cube;
use burn::tensor::{DType, Device, Shape, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use crate::device;
use crate::frozen::Compute;
use crate::gpu::number::round_bf16;
use crate::gpu::weight::{DeviceWeight, Kind, element};
use crate::gpu::{self, Words, arg};

/// Units of a cube.
const UNITS: u32 = 64;

#[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
pub(super) fn embedding(
    table: &DeviceWeight,
    compute: Compute,
    ids: &[u32],
    width: usize,
    device: &Device,
) -> Tensor<2> {
    let (client, len) = (&table.client, ids.len() * width);
    let place = device::cube(device).expect("the table is on this device");
    let shape = Shape::new([ids.len(), width]);
    let handle = client.empty((len * 4).max(4));
    let out = CubeTensor::new_contiguous(client.clone(), place, shape, handle, DType::F32);
    if len > 0 {
        let round = compute == Compute::Bf16 && table.kind != Kind::Bf16;
        // SAFETY: ids are below the table's rows, and the kernel stays inside `len` outputs.
        unsafe {
            embedding_kernel::launch_unchecked(
                client,
                gpu::cubes(len.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                table.codes.arg(),
                table.table.arg(),
                Words::upload(client, ids).arg(),
                arg(&out),
                len as u32,
                width as u32,
                table.scale_codes_at as u32,
                table.kind,
                round,
            );
        }
    }
    Tensor::from_primitive::<Cube>(out)
}

#[cube(launch_unchecked)]
fn embedding_kernel(
    codes: &[u32],
    table: &[f32],
    ids: &[u32],
    out: &mut [f32],
    len: u32,
    width: u32,
    scale_codes_at: u32,
    #[comptime] kind: Kind,
    #[comptime] round: bool,
) {
    if ABSOLUTE_POS < len as usize {
        let width = width as usize;
        let row = ids[ABSOLUTE_POS / width] as usize;
        let at = row * width + ABSOLUTE_POS % width;
        let mut value = element(codes, table, at, row, scale_codes_at as usize, kind);
        if comptime!(round) {
            value = round_bf16(value);
        }
        out[ABSOLUTE_POS] = value;
    }
}
