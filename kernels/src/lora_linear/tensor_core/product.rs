//! The kernel: tiles of a product.

use cubecl_core as cubecl;
use cubecl_core::prelude::*;
use half::bf16;

use super::finish::{finish, mask_sums};
use super::number::{Mask, Run};
use super::stage::{fetch_left, fetch_right, held_kind, runs, stage_left, stage_right};
use super::{FRAGMENT, Kind, Masked, PLANE, Plan, RUN, Side};

/// Sizes and places that are known when a kernel is launched.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) m: u32,
    pub(crate) n: u32,
    pub(crate) k: u32,
    /// Inner indices that a cube sums: cubes along z sum the parts of the inner axis.
    pub(crate) part: u32,
    pub(crate) left_at: u32,
    pub(crate) left_stride: u32,
    pub(crate) right_at: u32,
    pub(crate) right_row: u32,
    pub(crate) right_width: u32,
    pub(crate) scale_codes_at: u32,
    pub(crate) k2: u32,
    pub(crate) left2_at: u32,
    pub(crate) left2_stride: u32,
    pub(crate) right2_width: u32,
    pub(crate) out_at: u32,
    pub(crate) out_stride: u32,
    /// Elements from the output of one part to that of the next.
    pub(crate) out_part: u32,
    pub(crate) scale: f32,
}

/// Sizes and places of one of the two products.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Walk {
    pub(super) m: usize,
    pub(super) n: usize,
    /// First inner index, and the first past the last.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) left_at: usize,
    pub(super) left_stride: usize,
    pub(super) right_at: usize,
    pub(super) right_row: usize,
    pub(super) right_width: usize,
    pub(super) scale_codes_at: usize,
}

/// Shared memory of a cube.
#[derive(CubeType)]
struct Stretches {
    left: Shared<[Run]>,
    right: Shared<[Run]>,
    values: Shared<[f32]>,
}

/// The accumulators of a plane, fragment by fragment in row order.
pub(super) type Sums = Sequence<cmma::Matrix<f32>>;

/// See [`Plan`]; buffers that a plan does not use may be any.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn tensor_product(
    left: &[f32],
    codes: &[u32],
    table: &[f32],
    left2: &[f32],
    right2: &[u32],
    extra: &[f32],
    bias: &[f32],
    out: &mut [f32],
    places: Places,
    mask: Mask,
    #[comptime] plan: Plan,
) {
    let tile = comptime!(plan.tile);
    let left_len = comptime!(2 * plan.left.runs(tile.cube[0], tile.depth));
    let right_len = comptime!(2 * plan.right.runs(tile.cube[1], tile.depth));
    let mut stretches = Stretches {
        left: Shared::<[Run]>::new_aligned_slice(left_len, 32usize),
        right: Shared::<[Run]>::new_aligned_slice(right_len, 32usize),
        values: Shared::<[f32]>::new_aligned_slice(16usize, 32usize),
    };
    let planes = comptime!(tile.units() / PLANE);
    let mut room = Shared::<[f32]>::new_aligned_slice(comptime!(planes * FRAGMENT * FRAGMENT), 32usize);
    if comptime!(matches!(plan.kind, Kind::Nf4 { .. })) {
        if UNIT_POS < 16u32 {
            stretches.values[UNIT_POS as usize] = table[UNIT_POS as usize];
        }
        sync_cube();
    }
    let mut sums = Sums::new();
    #[unroll]
    for _ in 0..comptime!(tile.fragments()[0] * tile.fragments()[1]) {
        sums.push(cmma::Matrix::<f32>::from_value(
            cmma::MatrixIdent::Accumulator,
            FRAGMENT,
            FRAGMENT,
            FRAGMENT,
            cmma::MatrixLayout::Undefined,
            0.0f32,
        ));
    }
    let (m, n) = (places.m as usize, places.n as usize);
    // The second product comes first: the mask is only for it, and then both have the same accumulators.
    if comptime!(plan.second.is_some()) {
        let walk = Walk {
            m,
            n,
            start: 0usize.runtime(),
            end: places.k2 as usize,
            left_at: places.left2_at as usize,
            left_stride: places.left2_stride as usize,
            right_at: 0usize.runtime(),
            right_row: 0usize.runtime(),
            right_width: places.right2_width as usize,
            scale_codes_at: 0usize.runtime(),
        };
        let (side, whole) = comptime!(plan.second.unwrap_or((Side::Inner, false)));
        let second = comptime!(Plan {
            left: Side::Inner,
            right: side,
            kind: Kind::F32,
            left_whole: whole,
            right_whole: whole,
            masked: Masked::Nothing,
            ..plan
        });
        accumulate(left2, right2, table, &mut stretches, &sums, &walk, &mask, second);
        if comptime!(plan.masked == Masked::Second) {
            mask_sums(&mut sums, &mut room, n, &mask, tile);
        }
    }
    let start = CUBE_POS_Z as usize * places.part as usize;
    let first = Walk {
        m,
        n,
        start,
        end: min(places.k as usize, start + places.part as usize),
        left_at: places.left_at as usize,
        left_stride: places.left_stride as usize,
        right_at: places.right_at as usize,
        right_row: places.right_row as usize,
        right_width: places.right_width as usize,
        scale_codes_at: places.scale_codes_at as usize,
    };
    accumulate(left, codes, table, &mut stretches, &sums, &first, &mask, plan);
    finish(out, &sums, &mut room, extra, bias, &places, plan);
}

/// Adds a product to the sums of all planes, in rising order of the inner index.
///
/// Shared memory holds two stretches: while the planes multiply one, the next comes into registers and goes from
/// there to the other. One barrier a stretch keeps them apart.
#[cube]
fn accumulate(
    left: &[f32],
    codes: &[u32],
    table: &[f32],
    stretches: &mut Stretches,
    sums: &Sums,
    walk: &Walk,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    let tile = comptime!(plan.tile);
    let units = comptime!(tile.units());
    let left_len = comptime!(plan.left.runs(tile.cube[0], tile.depth));
    let right_len = comptime!(plan.right.runs(tile.cube[1], tile.depth));
    let left_runs = comptime!(runs(tile.cube[0], tile.depth, units));
    let right_runs = comptime!(runs(tile.cube[1], tile.depth, units));
    let mut lefts = Array::<f32>::new(comptime!(left_runs * RUN));
    let mut rights = Array::<u32>::new(comptime!(right_runs * held_kind(plan).words()));
    let mut scales = Array::<f32>::new(right_runs);
    let steps = (walk.end - walk.start).div_ceil(tile.depth);
    fetch_left(left, &mut lefts, walk, walk.start, mask, plan);
    fetch_right(codes, table, &mut rights, &mut scales, walk, walk.start, mask, plan);
    stage_left(&lefts, &mut stretches.left, 0usize.runtime(), plan);
    stage_right(&rights, &scales, &stretches.values, &mut stretches.right, 0usize.runtime(), plan);
    sync_cube();
    for step in 0..steps {
        let next = walk.start + (step + 1) * tile.depth;
        if step + 1 < steps {
            fetch_left(left, &mut lefts, walk, next, mask, plan);
            fetch_right(codes, table, &mut rights, &mut scales, walk, next, mask, plan);
        }
        multiply(&stretches.left, &stretches.right, step % 2 * left_len, step % 2 * right_len, sums, plan);
        if step + 1 < steps {
            let other = (step + 1) % 2;
            stage_left(&lefts, &mut stretches.left, other * left_len, plan);
            stage_right(&rights, &scales, &stretches.values, &mut stretches.right, other * right_len, plan);
        }
        sync_cube();
    }
}

/// Multiplies the stretches in shared memory.
#[cube]
fn multiply(
    lefts: &Shared<[Run]>,
    rights: &Shared<[Run]>,
    left_at: usize,
    right_at: usize,
    sums: &Sums,
    #[comptime] plan: Plan,
) {
    let tile = comptime!(plan.tile);
    let [down, across] = comptime!(tile.fragments());
    let [left_lines, left_stride] = comptime!(plan.left.lines(tile.cube[0], tile.depth));
    let [right_lines, right_stride] = comptime!(plan.right.lines(tile.cube[1], tile.depth));
    let (left_len, right_len) =
        comptime!((2 * left_lines * left_stride / RUN, 2 * right_lines * right_stride / RUN));
    let plane = (UNIT_POS / PLANE as u32) as usize;
    let planes_across = comptime!(tile.planes()[1]);
    let row = plane / planes_across * comptime!(tile.plane[0]);
    let column = plane % planes_across * comptime!(tile.plane[1]);
    #[unroll]
    for inner in 0..comptime!(tile.depth / FRAGMENT) {
        let mut columns = Sequence::<cmma::Matrix<bf16>>::new();
        #[unroll]
        for j in 0..across {
            let at = start(column + j * FRAGMENT, inner * FRAGMENT, right_stride, comptime!(plan.right));
            columns.push(fragment(
                &rights[right_at + at / RUN..comptime!(right_len)],
                cmma::MatrixIdent::B,
                comptime!(if plan.right == Side::Inner {
                    cmma::MatrixLayout::ColMajor
                } else {
                    cmma::MatrixLayout::RowMajor
                }),
                right_stride,
            ));
        }
        #[unroll]
        for i in 0..down {
            let at = start(row + i * FRAGMENT, inner * FRAGMENT, left_stride, comptime!(plan.left));
            let left = fragment(
                &lefts[left_at + at / RUN..comptime!(left_len)],
                cmma::MatrixIdent::A,
                comptime!(if plan.left == Side::Inner {
                    cmma::MatrixLayout::RowMajor
                } else {
                    cmma::MatrixLayout::ColMajor
                }),
                left_stride,
            );
            #[unroll]
            for j in 0..across {
                let sum = sums.index(i * across + j);
                cmma::execute(&left, columns.index(j), sum, sum);
            }
        }
    }
}

/// Where in a stretch the element of a row and an inner index is.
#[cube]
fn start(row: usize, inner: usize, #[comptime] stride: usize, #[comptime] side: Side) -> usize {
    if comptime!(side == Side::Inner) { row * stride + inner } else { inner * stride + row }
}

#[cube]
#[allow(unsafe_code, reason = "a matrix whose elements are not set before they are loaded")]
fn fragment(
    runs: &[Run],
    #[comptime] ident: cmma::MatrixIdent,
    #[comptime] layout: cmma::MatrixLayout,
    #[comptime] stride: usize,
) -> cmma::Matrix<bf16> {
    // SAFETY: it is loaded in the next line.
    let mut matrix =
        unsafe { cmma::Matrix::<bf16>::uninitialized(ident, FRAGMENT, FRAGMENT, FRAGMENT, layout) };
    cmma::load(&mut matrix, runs, comptime!(stride as u32));
    matrix
}
