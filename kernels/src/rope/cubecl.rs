//! The op as a CubeCL kernel: a unit takes a pair of elements, or two elements of a value head.
//!
//! Cosines and sines are computed on the host, where they have the CPU's bits (a device's `sin` of a large angle need
//! not be close), and stay on the device for all layers that have the same positions.

use std::cell::RefCell;
use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};

use super::{RopeBackend, RopeTable, cpu};
use crate::attention::QkvLayout;
use crate::gpu::{self, Words, arg};
use crate::isa;

/// Units of a cube.
const UNITS: u32 = 64;

impl RopeBackend for CubeBackend {
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn rope(
        qkv: FloatTensor<Self>,
        layout: QkvLayout,
        positions: Arc<[u32]>,
        table: RopeTable,
        inverse: bool,
    ) -> FloatTensor<Self> {
        let qkv = gpu::contiguous(qkv);
        let [tokens, width] = gpu::dims(&qkv);
        let out = gpu::empty(&qkv, [tokens, width]);
        if tokens > 0 {
            let angles = angles(&qkv, positions, table);
            let half = layout.head_dim / 2;
            let pairs = tokens * width / 2;
            let rotated = (layout.num_heads + layout.num_kv_heads) * half;
            // SAFETY: the kernel stays inside `pairs` pairs of elements.
            unsafe {
                rope_kernel::launch_unchecked(
                    &out.client,
                    gpu::cubes(pairs.div_ceil(UNITS as usize)),
                    CubeDim::new_1d(UNITS),
                    arg(&qkv),
                    angles.arg(),
                    arg(&out),
                    pairs as u32,
                    (width / 2) as u32,
                    rotated as u32,
                    half as u32,
                    if inverse { -1.0 } else { 1.0 },
                );
            }
        }
        out
    }
}

/// What was computed last on this thread: `[tokens, cos half | sin half]`.
struct Angles {
    device: CubeDevice,
    positions: Arc<[u32]>,
    table: RopeTable,
    words: Words,
}

thread_local! {
    static LAST: RefCell<Option<Angles>> = const { RefCell::new(None) };
}

fn angles(like: &CubeTensor, positions: Arc<[u32]>, table: RopeTable) -> Words {
    LAST.with_borrow_mut(|last| {
        let same = last.as_ref().filter(|last| {
            last.device == like.device && Arc::ptr_eq(&last.positions, &positions) && last.table == table
        });
        if let Some(last) = same {
            return last.words.clone();
        }
        let half = table.inv_freq.len();
        let mut values = vec![0.0; positions.len() * 2 * half];
        for (row, &position) in values.chunks_exact_mut(2 * half).zip(&*positions) {
            let (cos, sin) = row.split_at_mut(half);
            let scaling = [table.attention_scaling; 2];
            cpu::angles(isa::tier(), position as f32, &table.inv_freq, scaling, cos, sin);
        }
        let words = Words::upload(&like.client, &values);
        *last = Some(Angles { device: like.device.clone(), positions, table, words: words.clone() });
        words
    })
}

/// Pair `i` of a row is elements `i` and `i + half` of its head.
#[cube(launch_unchecked)]
fn rope_kernel(
    qkv: &[f32],
    angles: &[f32],
    out: &mut [f32],
    pairs: u32,
    row_pairs: u32,
    rotated: u32,
    half: u32,
    sign: f32,
) {
    if ABSOLUTE_POS < pairs as usize {
        let row = ABSOLUTE_POS / row_pairs as usize;
        let pair = ABSOLUTE_POS % row_pairs as usize;
        let (head, i) = (pair / half as usize, pair % half as usize);
        let low = row * 2 * row_pairs as usize + head * 2 * half as usize + i;
        let high = low + half as usize;
        let (a, b) = (qkv[low], qkv[high]);
        if pair < rotated as usize {
            let angle = row * 2 * half as usize + i;
            let (cos, sin) = (angles[angle], angles[angle + half as usize] * sign);
            out[low] = a * cos - b * sin;
            out[high] = b * cos + a * sin;
        } else {
            out[low] = a;
            out[high] = b;
        }
    }
}
