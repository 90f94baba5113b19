//! The op as CubeCL kernels: a unit takes an element.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::{GatedActBackend, GatedKind};
use crate::gpu::{self, arg};

/// Units of a cube.
const UNITS: u32 = 64;

impl GatedActBackend for CubeBackend {
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn gated_act(gate_up: FloatTensor<Self>, kind: GatedKind) -> FloatTensor<Self> {
        let gate_up = gpu::contiguous(gate_up);
        let [rows, width] = gpu::dims(&gate_up);
        let y = gpu::empty(&gate_up, [rows, width / 2]);
        let len = rows * width / 2;
        if len > 0 {
            // SAFETY: the kernel stays inside `len` outputs in rows of `width / 2`.
            unsafe {
                gated_act_kernel::launch_unchecked(
                    &y.client,
                    gpu::cubes(len.div_ceil(UNITS as usize)),
                    CubeDim::new_1d(UNITS),
                    arg(&gate_up),
                    arg(&y),
                    len as u32,
                    (width / 2) as u32,
                    kind,
                );
            }
        }
        y
    }

    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn gated_act_backward(
        gate_up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        kind: GatedKind,
    ) -> FloatTensor<Self> {
        let (gate_up, dy) = (gpu::contiguous(gate_up), gpu::contiguous(dy));
        let [rows, width] = gpu::dims(&gate_up);
        let d = gpu::empty(&gate_up, [rows, width]);
        let len = rows * width / 2;
        if len > 0 {
            // SAFETY: the kernel stays inside `len` outputs in rows of `width / 2`.
            unsafe {
                gated_act_backward_kernel::launch_unchecked(
                    &d.client,
                    gpu::cubes(len.div_ceil(UNITS as usize)),
                    CubeDim::new_1d(UNITS),
                    arg(&gate_up),
                    arg(&dy),
                    arg(&d),
                    len as u32,
                    (width / 2) as u32,
                    kind,
                );
            }
        }
        d
    }
}

#[cube(launch_unchecked)]
fn gated_act_kernel(gate_up: &[f32], y: &mut [f32], len: u32, f: u32, #[comptime] kind: GatedKind) {
    if ABSOLUTE_POS < len as usize {
        let f = f as usize;
        let at = ABSOLUTE_POS / f * 2 * f + ABSOLUTE_POS % f;
        let (act, _) = act(gate_up[at], kind);
        y[ABSOLUTE_POS] = act * gate_up[at + f];
    }
}

#[cube(launch_unchecked)]
fn gated_act_backward_kernel(
    gate_up: &[f32],
    dy: &[f32],
    d: &mut [f32],
    len: u32,
    f: u32,
    #[comptime] kind: GatedKind,
) {
    if ABSOLUTE_POS < len as usize {
        let f = f as usize;
        let at = ABSOLUTE_POS / f * 2 * f + ABSOLUTE_POS % f;
        let (act, slope) = act(gate_up[at], kind);
        let dy = dy[ABSOLUTE_POS];
        d[at] = dy * gate_up[at + f] * slope;
        d[at + f] = dy * act;
    }
}

/// The function of the gate and its derivative; the formulas are derived in `backward.rs`.
#[cube]
fn act(g: f32, #[comptime] kind: GatedKind) -> (f32, f32) {
    if comptime!(kind == GatedKind::SwiGlu) {
        let s = 1.0f32 / (1.0f32 + (0.0f32 - g).exp());
        (g * s, s * (1.0f32 + g * (1.0f32 - s)))
    } else {
        let root = 0.797_884_6f32;
        // Beyond 10 the tanh is 1 in f32, and the cube of a huge gate would overflow.
        let near = g.clamp(-10.0f32, 10.0f32);
        let square = near * near;
        let t = (root * near * (1.0f32 + 0.044715f32 * square)).tanh();
        let inner = root * (1.0f32 + 3.0f32 * 0.044715f32 * square);
        let bend = 0.5f32 * near * (1.0f32 - t * t) * inner;
        (0.5f32 * g * (1.0f32 + t), 0.5f32 * (1.0f32 + t) + bend)
    }
}
