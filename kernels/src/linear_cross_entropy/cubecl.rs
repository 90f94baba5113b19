//! The op as CubeCL kernels: the CPU's sweep over blocks of the vocabulary, each block three launches.
//!
//! Rows without a target are left out before the sweep. A block is: logits (a product), one step of the online
//! softmax (a cube a row), and where a gradient is wanted the sums of `exp . W` (a product onto the sums so far,
//! shrunk to the new maximum). Sums of `exp` and losses are f32: each row's in a tree over 64 units.

#![expect(clippy::eq_op, reason = "a comparison with itself finds NaN in a kernel")]

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::LinearCrossEntropyBackend;
use crate::frozen::{Compute, FrozenWeight};
use crate::gpu::number::{cube_max, cube_sum, round_bf16};
use crate::gpu::product::{Matrix, Product, Right};
use crate::gpu::weight::{DeviceWeight, Kind, element};
use crate::gpu::{self, Words, arg};

/// Rows of the head whose logits exist at one time.
const BLOCK: usize = 2048;
/// Units of a cube: a power of two.
const UNITS: u32 = 64;
/// Stands for the place of a row without a target.
const NOWHERE: u32 = u32::MAX;

impl LinearCrossEntropyBackend for CubeBackend {
    fn linear_cross_entropy(
        h: FloatTensor<Self>,
        head: FrozenWeight,
        targets: Arc<[i32]>,
    ) -> FloatTensor<Self> {
        Sweep::over(&gpu::contiguous(h), &head, &targets, false).loss()
    }

    fn linear_cross_entropy_with_gradient(
        h: FloatTensor<Self>,
        head: FrozenWeight,
        targets: Arc<[i32]>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let sweep = Sweep::over(&gpu::contiguous(h), &head, &targets, true);
        (sweep.loss(), sweep.gradient(&head))
    }
}

/// What a sweep over the head leaves.
struct Sweep {
    /// Tokens, with and without targets.
    tokens: usize,
    /// Tokens with targets: rows of what follows.
    rows: usize,
    hidden: usize,
    /// Place among the rows of each token.
    places: Words,
    /// `[rows]`
    targets: Words,
    /// `[rows]`: largest logit, sum of `exp`, logit of the target, factor of the last block.
    largest: CubeTensor,
    total: CubeTensor,
    target_logit: CubeTensor,
    factor: CubeTensor,
    /// `[rows, hidden]`: sum of `exp . W`, or one element.
    sums: CubeTensor,
}

impl Sweep {
    fn over(h: &CubeTensor, head: &FrozenWeight, targets: &[i32], gradient: bool) -> Self {
        let (weight, [vocab, hidden]) = (on_device(head), head.shape());
        let tokens = targets.len();
        let kept: Vec<u32> = (0..tokens as u32).filter(|&token| targets[token as usize] >= 0).collect();
        let mut places = vec![NOWHERE; tokens];
        (0u32..).zip(&kept).for_each(|(row, &token)| places[token as usize] = row);
        let wanted: Vec<u32> = kept.iter().map(|&token| targets[token as usize] as u32).collect();
        let rows = kept.len();
        let vector = || gpu::empty_vector(h, rows);
        let sums = gpu::empty(h, if gradient { [rows, hidden] } else { [1, 1] });
        let (places, targets) = (Words::upload(&h.client, &places), Words::upload(&h.client, &wanted));
        let [largest, total, target_logit, factor] = [vector(), vector(), vector(), vector()];
        let sweep =
            Self { tokens, rows, hidden, places, targets, largest, total, target_logit, factor, sums };
        if rows > 0 {
            let x = sweep.rows_of(h, &kept);
            let logits = gpu::empty(h, [rows, BLOCK.min(vocab)]);
            for first in (0..vocab).step_by(BLOCK) {
                sweep.block(&x, &logits, weight, [first, BLOCK.min(vocab - first)], head.compute(), gradient);
            }
        }
        sweep
    }

    /// Copies the rows with targets together.
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn rows_of(&self, h: &CubeTensor, kept: &[u32]) -> CubeTensor {
        let x = gpu::empty(h, [self.rows, self.hidden]);
        let len = self.rows * self.hidden;
        // SAFETY: `kept` are rows of `h`, and the kernel stays inside `len` outputs.
        unsafe {
            gather_kernel::launch_unchecked(
                &h.client,
                gpu::cubes(len.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                arg(h),
                Words::upload(&h.client, kept).arg(),
                arg(&x),
                len as u32,
                self.hidden as u32,
            );
        }
        x
    }

    /// Takes `count` rows of the head from `first` on.
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn block(
        &self,
        x: &CubeTensor,
        logits: &CubeTensor,
        weight: &DeviceWeight,
        [first, count]: [usize; 2],
        compute: Compute,
        gradient: bool,
    ) {
        let (rows, hidden) = (self.rows, self.hidden);
        let right = Right::weight(weight, hidden, first);
        Product::transposed(Matrix::whole(x), right.clone(), [rows, count, hidden], compute)
            .launch(logits, 0);
        // SAFETY: the kernel stays inside `rows` rows of the logits and of the state.
        unsafe {
            softmax_kernel::launch_unchecked(
                &x.client,
                gpu::cubes(rows),
                CubeDim::new_1d(UNITS),
                arg(logits),
                self.targets.arg(),
                arg(&self.largest),
                arg(&self.total),
                arg(&self.target_logit),
                arg(&self.factor),
                rows as u32,
                gpu::dims(logits)[1] as u32,
                first as u32,
                count as u32,
            );
        }
        if gradient {
            let product = Product::straight(Matrix::whole(logits), right, [rows, hidden, count], compute);
            let product = if first == 0 { product } else { product.onto_scaled(&self.factor) };
            product.launch(&self.sums, 0);
        }
    }

    /// Adds up the losses of all rows.
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn loss(&self) -> CubeTensor {
        let loss = gpu::empty_vector(&self.largest, 1);
        // SAFETY: the kernel stays inside `rows` rows of the state.
        unsafe {
            loss_kernel::launch_unchecked(
                &loss.client,
                CubeCount::Static(1, 1, 1),
                CubeDim::new_1d(UNITS),
                arg(&self.largest),
                arg(&self.total),
                arg(&self.target_logit),
                arg(&loss),
                self.rows as u32,
            );
        }
        loss
    }

    /// `dh = (sum of exp . W) / (sum of exp) - W[target]`, and zero for rows without a target.
    #[expect(unsafe_code, reason = "a launch without CubeCL's checks of every index")]
    fn gradient(&self, head: &FrozenWeight) -> CubeTensor {
        let weight = on_device(head);
        let dh = gpu::empty(&self.largest, [self.tokens, self.hidden]);
        let len = self.tokens * self.hidden;
        if len > 0 {
            let round = head.compute() == Compute::Bf16 && weight.kind != Kind::Bf16;
            // SAFETY: targets are rows of the head, and the kernel stays inside `len` outputs.
            unsafe {
                gradient_kernel::launch_unchecked(
                    &dh.client,
                    gpu::cubes(len.div_ceil(UNITS as usize)),
                    CubeDim::new_1d(UNITS),
                    weight.codes.arg(),
                    weight.table.arg(),
                    self.places.arg(),
                    self.targets.arg(),
                    arg(&self.sums),
                    arg(&self.total),
                    arg(&dh),
                    len as u32,
                    self.hidden as u32,
                    weight.scale_codes_at as u32,
                    weight.kind,
                    round,
                );
            }
        }
        dh
    }
}

fn on_device(weight: &FrozenWeight) -> &DeviceWeight {
    weight.on_device().expect("`linear_cross_entropy`: tensors on a device come with a head there")
}

#[cube(launch_unchecked)]
fn gather_kernel(h: &[f32], kept: &[u32], x: &mut [f32], len: u32, hidden: u32) {
    if ABSOLUTE_POS < len as usize {
        let hidden = hidden as usize;
        let row = kept[ABSOLUTE_POS / hidden] as usize;
        x[ABSOLUTE_POS] = h[row * hidden + ABSOLUTE_POS % hidden];
    }
}

/// One step of the online softmax over a block of a row's logits, which become `exp(logit - max)`.
#[cube(launch_unchecked)]
fn softmax_kernel(
    logits: &mut [f32],
    targets: &[u32],
    largest: &mut [f32],
    total: &mut [f32],
    target_logit: &mut [f32],
    factor: &mut [f32],
    rows: u32,
    stride: u32,
    first: u32,
    count: u32,
) {
    let mut room = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let row = CUBE_POS;
    let unit = UNIT_POS as usize;
    if row < rows as usize {
        let at = row * stride as usize;
        let turns = (count as usize).div_ceil(comptime!(UNITS as usize));
        let mut most = logits[at];
        for turn in 0..turns {
            let i = turn * comptime!(UNITS as usize) + unit;
            if i < count as usize {
                let logit = logits[at + i];
                most = select(most >= logit || most != most, most, logit);
            }
        }
        let mut new = cube_max(most, &mut room, UNITS);
        let mut shrink = 0.0f32;
        let mut before = 0.0f32;
        if first > 0 {
            let old = largest[row];
            before = total[row];
            new = select(old >= new || old != old, old, new);
            shrink = (old - new).exp();
        }
        // All units have read the state before one of them writes it.
        sync_cube();
        let target = targets[row];
        if unit == 0 && target >= first && target < first + count {
            target_logit[row] = logits[at + (target - first) as usize];
        }
        sync_cube();
        let mut sum = 0.0f32;
        for turn in 0..turns {
            let i = turn * comptime!(UNITS as usize) + unit;
            if i < count as usize {
                let e = (logits[at + i] - new).exp();
                logits[at + i] = e;
                sum += e;
            }
        }
        let sum = cube_sum(sum, &mut room, UNITS);
        if unit == 0 {
            largest[row] = new;
            total[row] = before * shrink + sum;
            factor[row] = shrink;
        }
    }
}

#[cube(launch_unchecked)]
fn loss_kernel(largest: &[f32], total: &[f32], target_logit: &[f32], loss: &mut [f32], rows: u32) {
    let mut room = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let unit = UNIT_POS as usize;
    let turns = (rows as usize).div_ceil(comptime!(UNITS as usize));
    let mut sum = 0.0f32;
    for turn in 0..turns {
        let row = turn * comptime!(UNITS as usize) + unit;
        if row < rows as usize {
            sum += largest[row] - target_logit[row] + total[row].ln();
        }
    }
    let sum = cube_sum(sum, &mut room, UNITS);
    if unit == 0 {
        loss[0] = sum;
    }
}

#[cube(launch_unchecked)]
fn gradient_kernel(
    codes: &[u32],
    table: &[f32],
    places: &[u32],
    targets: &[u32],
    sums: &[f32],
    total: &[f32],
    dh: &mut [f32],
    len: u32,
    hidden: u32,
    scale_codes_at: u32,
    #[comptime] kind: Kind,
    #[comptime] round: bool,
) {
    if ABSOLUTE_POS < len as usize {
        let hidden = hidden as usize;
        let (token, i) = (ABSOLUTE_POS / hidden, ABSOLUTE_POS % hidden);
        let place = places[token];
        let mut value = 0.0f32;
        if place != NOWHERE {
            let row = place as usize;
            let target = targets[row] as usize;
            let mut weight =
                element(codes, table, target * hidden + i, target, scale_codes_at as usize, kind);
            if comptime!(round) {
                weight = round_bf16(weight);
            }
            value = sums[row * hidden + i] / total[row] - weight;
        }
        dh[ABSOLUTE_POS] = value;
    }
}
