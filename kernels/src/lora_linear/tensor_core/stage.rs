//! The way of operands from global memory through registers into shared memory.
#![expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "on the host an `Array` is a number, in a kernel registers"
)]

use cubecl_core as cubecl;
use cubecl_core::prelude::*;
use half::bf16;

use super::number::{Mask, Run, mask_factor};
use super::product::Walk;
use super::{Kind, Masked, Plan, RUN, Side};

/// `1 / 127` in f32, as bitsandbytes multiplies.
const INT8_RECIPROCAL: f32 = 1.0 / 127.0;
/// Entries of the table before the nested scales: NF4's values, the scales' map, their offset.
const NESTED_AT: usize = 16 + 256 + 1;

/// Where a run starts: its line, and its place in the line, in the operand.
#[derive(CubeType, Clone, Copy)]
struct Place {
    line: usize,
    start: usize,
    /// First index past the lines, and past the elements of a line.
    lines: usize,
    end: usize,
}

/// Runs that each unit fetches of a stretch.
pub(super) const fn runs(rows: usize, depth: usize, units: usize) -> usize {
    (rows * depth).div_ceil(RUN * units)
}

/// Where run `number` of a stretch is: in the operand from `first` row and inner index `inner` on.
#[cube]
fn place(
    number: usize,
    first: usize,
    inner: usize,
    rows_end: usize,
    inner_end: usize,
    #[comptime] side: Side,
    #[comptime] rows: usize,
    #[comptime] depth: usize,
) -> Place {
    if comptime!(side == Side::Inner) {
        let in_line = comptime!(depth / RUN);
        Place {
            line: first + number / in_line,
            start: inner + number % in_line * RUN,
            lines: rows_end,
            end: inner_end,
        }
    } else {
        let in_line = comptime!(rows / RUN);
        Place {
            line: inner + number / in_line,
            start: first + number % in_line * RUN,
            lines: inner_end,
            end: rows_end,
        }
    }
}

/// The place in shared memory where a run goes.
#[cube]
fn target(number: usize, #[comptime] side: Side, #[comptime] rows: usize, #[comptime] depth: usize) -> usize {
    let stride = comptime!(side.lines(rows, depth)[1]);
    let in_line = comptime!(match side {
        Side::Inner => depth / RUN,
        Side::Outer => rows / RUN,
    });
    number / in_line * comptime!(stride / RUN) + number % in_line
}

/// Fetches this unit's runs of the left operand into registers.
#[cube]
pub(super) fn fetch_left(
    left: &[f32],
    held: &mut Array<f32>,
    walk: &Walk,
    inner: usize,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    let tile = comptime!(plan.tile);
    let rows = comptime!(tile.cube[0]);
    let units = comptime!(tile.units());
    let first = CUBE_POS_Y as usize * rows;
    #[unroll]
    for turn in 0..comptime!(runs(rows, tile.depth, units)) {
        let number = UNIT_POS as usize + turn * units;
        if comptime!(rows * tile.depth / RUN >= (turn + 1) * units)
            || number < comptime!(rows * tile.depth / RUN)
        {
            let place = place(
                number,
                first,
                inner,
                walk.m,
                walk.end,
                comptime!(plan.left),
                rows,
                comptime!(tile.depth),
            );
            let at = walk.left_at + place.line * walk.left_stride + place.start;
            #[unroll]
            for i in 0..RUN {
                held[turn * RUN + i] = 0.0f32;
            }
            if place.line < place.lines && place.start < place.end {
                if comptime!(plan.left_whole) {
                    fetch_floats(left, held, turn * RUN, at, mask, plan);
                } else {
                    let count = place.end - place.start;
                    fetch_rounded(left, held, turn * RUN, at, count, mask, plan);
                }
            }
        }
    }
}

/// Fetches a run of f32 that starts at element `at`, a multiple of four.
#[cube]
fn fetch_floats(
    values: &[f32],
    held: &mut Array<f32>,
    to: usize,
    at: usize,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    let vectors = values.as_vectorized().with_vector_size::<Const<4>>();
    #[unroll]
    for half in 0..2usize {
        let vector = vectors[at / 4 + half];
        #[unroll]
        for i in 0..4usize {
            let mut value = vector.extract(i);
            if comptime!(plan.masked == Masked::Left) {
                value *= mask_factor(mask, (at + half * 4 + i) as u64);
            }
            held[to + half * 4 + i] = value;
        }
    }
}

/// Fetches a run that need not be whole, `count` of whose elements are inside the line, as bf16, two a register.
#[cube]
fn fetch_rounded(
    values: &[f32],
    held: &mut Array<f32>,
    to: usize,
    at: usize,
    count: usize,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for pair in 0..comptime!(RUN / 2) {
        let mut word = 0u32;
        #[unroll]
        for half in 0..2usize {
            let i = pair * 2 + half;
            if i < count {
                let mut value = values[at + i];
                if comptime!(plan.masked == Masked::Left) {
                    value *= mask_factor(mask, (at + i) as u64);
                }
                word |= bits_of(bf16::cast_from(value)) << (16u32 * half as u32);
            }
        }
        held[to + pair] = f32::reinterpret(word);
    }
}

#[cube]
fn bits_of(value: bf16) -> u32 {
    u32::cast_from(u16::reinterpret(value))
}

/// One half of a register that holds two bf16.
#[cube]
fn half_of(word: u32, #[comptime] i: usize) -> bf16 {
    bf16::reinterpret(u16::cast_from(word >> comptime!(16 * (i as u32 % 2))))
}

/// Puts this unit's runs of the left operand into shared memory, as bf16.
#[cube]
pub(super) fn stage_left(
    held: &Array<f32>,
    stretch: &mut Shared<[Run]>,
    from: usize,
    #[comptime] plan: Plan,
) {
    let tile = comptime!(plan.tile);
    let rows = comptime!(tile.cube[0]);
    let units = comptime!(tile.units());
    #[unroll]
    for turn in 0..comptime!(runs(rows, tile.depth, units)) {
        let number = UNIT_POS as usize + turn * units;
        if comptime!(rows * tile.depth / RUN >= (turn + 1) * units)
            || number < comptime!(rows * tile.depth / RUN)
        {
            let mut run = Run::empty();
            #[unroll]
            for i in 0..RUN {
                if comptime!(plan.left_whole) {
                    run.insert(i, bf16::cast_from(held[turn * RUN + i]));
                } else {
                    run.insert(i, half_of(u32::reinterpret(held[turn * RUN + i / 2]), i));
                }
            }
            stretch[from + target(number, comptime!(plan.left), rows, comptime!(tile.depth))] = run;
        }
    }
}

/// How the right operand is held in registers: runs that are not whole are decoded when they are fetched, and take
/// registers for addresses, so they are held as bf16.
pub(super) const fn held_kind(plan: Plan) -> Kind {
    if plan.right_whole { plan.kind } else { Kind::Bf16 }
}

/// Fetches this unit's runs of the right operand into registers: packed words, and the scale of each run.
#[cube]
pub(super) fn fetch_right(
    codes: &[u32],
    table: &[f32],
    held: &mut Array<u32>,
    scales: &mut Array<f32>,
    walk: &Walk,
    inner: usize,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    let tile = comptime!(plan.tile);
    let rows = comptime!(tile.cube[1]);
    let units = comptime!(tile.units());
    let words = comptime!(held_kind(plan).words());
    let first = CUBE_POS_X as usize * rows;
    #[unroll]
    for turn in 0..comptime!(runs(rows, tile.depth, units)) {
        let number = UNIT_POS as usize + turn * units;
        if comptime!(rows * tile.depth / RUN >= (turn + 1) * units)
            || number < comptime!(rows * tile.depth / RUN)
        {
            let place = place(
                number,
                first,
                inner,
                walk.n,
                walk.end,
                comptime!(plan.right),
                rows,
                comptime!(tile.depth),
            );
            let row = walk.right_row + place.line;
            let at = walk.right_at + row * walk.right_width + place.start;
            #[unroll]
            for i in 0..words {
                held[turn * words + i] = 0u32;
            }
            scales[turn] = 0.0f32;
            if place.line < place.lines && place.start < place.end {
                if comptime!(plan.right_whole) {
                    fetch_words(codes, held, turn * words, at, comptime!(plan.kind));
                    scales[turn] = scale(codes, table, at, row, walk.scale_codes_at, comptime!(plan.kind));
                    if comptime!(plan.masked == Masked::Right) {
                        #[unroll]
                        for i in 0..RUN {
                            let value =
                                f32::reinterpret(held[turn * words + i]) * mask_factor(mask, (at + i) as u64);
                            held[turn * words + i] = u32::reinterpret(value);
                        }
                    }
                } else {
                    let count = place.end - place.start;
                    fetch_elements(
                        codes,
                        table,
                        held,
                        turn * words,
                        at,
                        row,
                        count,
                        walk.scale_codes_at,
                        mask,
                        plan,
                    );
                }
            }
        }
    }
}

/// Fetches the elements of a run that need not be whole, `count` of which are inside the line, as bf16.
#[cube]
fn fetch_elements(
    codes: &[u32],
    table: &[f32],
    held: &mut Array<u32>,
    to: usize,
    at: usize,
    row: usize,
    count: usize,
    scale_codes_at: usize,
    mask: &Mask,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for pair in 0..comptime!(RUN / 2) {
        let mut word = 0u32;
        #[unroll]
        for half in 0..2usize {
            let i = pair * 2 + half;
            if i < count {
                let mut value = element(codes, table, at + i, row, scale_codes_at, comptime!(plan.kind));
                if comptime!(plan.masked == Masked::Right) {
                    value *= mask_factor(mask, (at + i) as u64);
                }
                word |= bits_of(bf16::cast_from(value)) << (16u32 * half as u32);
            }
        }
        held[to + pair] = word;
    }
}

/// Fetches the words of a run that starts at element `at`, a multiple of eight.
#[cube]
fn fetch_words(codes: &[u32], held: &mut Array<u32>, to: usize, at: usize, #[comptime] kind: Kind) {
    let words = comptime!(kind.words());
    if comptime!(words >= 4) {
        let vectors = codes.as_vectorized().with_vector_size::<Const<4>>();
        #[unroll]
        for quarter in 0..comptime!(words / 4) {
            let vector = vectors[at * words / RUN / 4 + quarter];
            #[unroll]
            for i in 0..4usize {
                held[to + quarter * 4 + i] = vector.extract(i);
            }
        }
    } else if comptime!(words == 2) {
        let vector = codes.as_vectorized().with_vector_size::<Const<2>>()[at / RUN];
        held[to] = vector.extract(0usize);
        held[to + 1] = vector.extract(1usize);
    } else {
        held[to] = codes[at / RUN];
    }
}

/// The scale of the element `at` of the flattened matrix, which lies in row `row`.
#[cube]
fn scale(
    codes: &[u32],
    table: &[f32],
    at: usize,
    row: usize,
    scale_codes_at: usize,
    #[comptime] kind: Kind,
) -> f32 {
    let (block_log2, nested_block) = comptime!(match kind {
        Kind::Nf4 { block_log2, nested_block } => (block_log2 as usize, nested_block as usize),
        _ => (0, 0),
    });
    let block = at >> block_log2;
    if comptime!(matches!(kind, Kind::Int8)) {
        table[row]
    } else if comptime!(matches!(kind, Kind::F32 | Kind::Bf16)) {
        1.0f32.runtime()
    } else if comptime!(nested_block == 0) {
        table[16 + block]
    } else {
        let code = (codes[scale_codes_at + block / 4] >> (8u32 * (block % 4) as u32)) & 255u32;
        table[16 + code as usize] * table[NESTED_AT + block / nested_block] + table[NESTED_AT - 1]
    }
}

/// Decodes one element of a run from its words; `values` are those that NF4's codes stand for.
#[cube]
fn decode(
    held: &Array<u32>,
    from: usize,
    scale: f32,
    values: &Shared<[f32]>,
    #[comptime] i: usize,
    #[comptime] kind: Kind,
) -> bf16 {
    if comptime!(kind == Kind::F32) {
        bf16::cast_from(f32::reinterpret(held[from + i]))
    } else if comptime!(kind == Kind::Bf16) {
        half_of(held[from + i / 2], i)
    } else if comptime!(kind == Kind::Int8) {
        let byte = i32::reinterpret(held[from + i / 4] << comptime!(24 - 8 * (i as u32 % 4))) >> 24i32;
        bf16::cast_from(f32::cast_from(byte) * scale * INT8_RECIPROCAL)
    } else {
        // Two codes a byte, the even element in the high half.
        let code = (held[from] >> comptime!(4 * (i as u32 ^ 1))) & 15u32;
        bf16::cast_from(values[code as usize] * scale)
    }
}

/// Decodes element `at` of the flattened matrix straight from memory: where runs are not whole.
#[cube]
pub(crate) fn element(
    codes: &[u32],
    table: &[f32],
    at: usize,
    row: usize,
    scale_codes_at: usize,
    #[comptime] kind: Kind,
) -> f32 {
    let scale = scale(codes, table, at, row, scale_codes_at, kind);
    if comptime!(kind == Kind::F32) {
        f32::reinterpret(codes[at])
    } else if comptime!(kind == Kind::Bf16) {
        f32::reinterpret((codes[at / 2] >> (16u32 * (at % 2) as u32)) << 16u32)
    } else if comptime!(kind == Kind::Int8) {
        let byte = i32::reinterpret(codes[at / 4] << (24u32 - 8u32 * (at % 4) as u32)) >> 24i32;
        f32::cast_from(byte) * scale * INT8_RECIPROCAL
    } else {
        let shift = ((at % 8) as u32 ^ 1u32) * 4u32;
        table[((codes[at / 8] >> shift) & 15u32) as usize] * scale
    }
}

/// Puts this unit's runs of the right operand into shared memory, decoded, as bf16.
#[cube]
pub(super) fn stage_right(
    held: &Array<u32>,
    scales: &Array<f32>,
    values: &Shared<[f32]>,
    stretch: &mut Shared<[Run]>,
    from: usize,
    #[comptime] plan: Plan,
) {
    let tile = comptime!(plan.tile);
    let rows = comptime!(tile.cube[1]);
    let units = comptime!(tile.units());
    let kind = comptime!(held_kind(plan));
    let words = comptime!(kind.words());
    #[unroll]
    for turn in 0..comptime!(runs(rows, tile.depth, units)) {
        let number = UNIT_POS as usize + turn * units;
        if comptime!(rows * tile.depth / RUN >= (turn + 1) * units)
            || number < comptime!(rows * tile.depth / RUN)
        {
            let mut run = Run::empty();
            #[unroll]
            for i in 0..RUN {
                run.insert(i, decode(held, turn * words, scales[turn], values, i, kind));
            }
            stretch[from + target(number, comptime!(plan.right), rows, comptime!(tile.depth))] = run;
        }
    }
}
