//! Numbers inside kernels: rounding to bf16, the dropout mask, sums over a cube.

#![expect(clippy::eq_op, reason = "a comparison with itself finds NaN in a kernel")]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use crate::lora_linear::Dropout;

/// Rounds to the nearest bf16, ties to even, staying in f32; see [`crate::frozen::round_to_bf16`].
#[cube]
pub(crate) fn round_bf16(x: f32) -> f32 {
    let bits = u32::reinterpret(x);
    let rounded = (bits + 0x7fff_u32 + ((bits >> 16u32) & 1u32)) & 0xffff_0000_u32;
    let is_nan = (bits & 0x7fff_ffff_u32) > 0x7f80_0000_u32;
    f32::reinterpret(select(is_nan, bits, rounded))
}

/// A dropout mask as kernels read it.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Mask {
    key_low: u32,
    key_high: u32,
    probability: f32,
    kept: f32,
}

impl Mask {
    /// The launch arguments of a mask; of none where there is no dropout.
    pub(crate) fn launch_args(dropout: Option<Dropout>) -> MaskLaunch {
        let (probability, key) = Dropout::of_whole_inputs(dropout);
        MaskLaunch::new(key as u32, (key >> 32) as u32, probability, 1.0 / (1.0 - probability))
    }
}

/// An unsigned integer of 64 bits: WGSL has none.
#[derive(CubeType, Clone, Copy)]
struct Wide {
    low: u32,
    high: u32,
}

/// The high half of a product, from products of halves.
#[cube]
fn high_of_product(a: u32, b: u32) -> u32 {
    let (a_low, a_high) = (a & 0xffff_u32, a >> 16u32);
    let (b_low, b_high) = (b & 0xffff_u32, b >> 16u32);
    let cross = a_high * b_low + ((a_low * b_low) >> 16u32);
    let other = a_low * b_high + (cross & 0xffff_u32);
    a_high * b_high + (cross >> 16u32) + (other >> 16u32)
}

#[cube]
fn times(a: Wide, low: u32, high: u32) -> Wide {
    Wide { low: a.low * low, high: high_of_product(a.low, low) + a.low * high + a.high * low }
}

/// `z ^ (z >> shift)` for a shift from 1 to 31.
#[cube]
fn fold(z: Wide, #[comptime] shift: u32) -> Wide {
    let low = (z.low >> shift) | (z.high << comptime!(32 - shift));
    Wide { low: z.low ^ low, high: z.high ^ (z.high >> shift) }
}

/// What element `index` is multiplied by: [`Dropout::factor`], to the bit.
#[cube]
pub(crate) fn mask_factor(mask: &Mask, index: u32) -> f32 {
    let start = times(Wide { low: index + 1u32, high: 0u32.runtime() }, 0x7f4a_7c15_u32, 0x9e37_79b9_u32);
    let low = mask.key_low + start.low;
    let carry = select(low < start.low, 1u32, 0u32);
    let z = Wide { low, high: mask.key_high + start.high + carry };
    let z = times(fold(z, 30u32), 0x1ce4_e5b9_u32, 0xbf58_476d_u32);
    let z = times(fold(z, 27u32), 0x1331_11eb_u32, 0x94d0_49bb_u32);
    let z = fold(z, 31u32);
    let uniform = f32::cast_from(z.high >> 8u32) / 16_777_216.0f32;
    select(uniform < mask.probability, 0.0f32, mask.kept)
}

/// Adds one value of each unit of the cube, as a tree over units: every unit gets the same sum.
///
/// `units` is a power of two; `room` holds as many elements, and is free again when this returns.
#[cube]
pub(crate) fn cube_sum(value: f32, room: &mut Shared<[f32]>, #[comptime] units: u32) -> f32 {
    let unit = UNIT_POS as usize;
    room[unit] = value;
    sync_cube();
    let levels = comptime!(units.trailing_zeros());
    #[unroll]
    for level in 0..levels {
        let half = comptime!((units >> (level + 1)) as usize);
        if unit < half {
            let other = room[unit + half];
            room[unit] += other;
        }
        sync_cube();
    }
    let sum = room[0];
    sync_cube();
    sum
}

/// The largest value of all units of the cube, as [`cube_sum`].
#[cube]
pub(crate) fn cube_max(value: f32, room: &mut Shared<[f32]>, #[comptime] units: u32) -> f32 {
    let unit = UNIT_POS as usize;
    room[unit] = value;
    sync_cube();
    let levels = comptime!(units.trailing_zeros());
    #[unroll]
    for level in 0..levels {
        let half = comptime!((units >> (level + 1)) as usize);
        if unit < half {
            let (one, other) = (room[unit], room[unit + half]);
            // NaN wins, so that it reaches the loss.
            room[unit] = select(one >= other || one != one, one, other);
        }
        sync_cube();
    }
    let largest = room[0];
    sync_cube();
    largest
}
