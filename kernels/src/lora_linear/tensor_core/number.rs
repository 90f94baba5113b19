//! Numbers inside kernels: pairs of bf16, the dropout mask.

use cubecl_core as cubecl;
use cubecl_core::prelude::*;
use half::bf16;

/// A run of elements as they lie in shared memory.
pub(super) type Run = Vector<bf16, Const<8>>;

/// A dropout mask as kernels read it.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Mask {
    pub(crate) key_low: u32,
    pub(crate) key_high: u32,
    pub(crate) probability: f32,
    pub(crate) kept: f32,
}

/// What element `index` is multiplied by: [`Dropout::factor`](crate::lora_linear::Dropout::factor), to the bit.
#[cube]
pub(super) fn mask_factor(mask: &Mask, index: u64) -> f32 {
    let key = u64::cast_from(mask.key_low) | (u64::cast_from(mask.key_high) << 32u64);
    let z = key + (index + 1u64) * 0x9e37_79b9_7f4a_7c15_u64;
    let z = (z ^ (z >> 30u64)) * 0xbf58_476d_1ce4_e5b9_u64;
    let z = (z ^ (z >> 27u64)) * 0x94d0_49bb_1331_11eb_u64;
    let z = z ^ (z >> 31u64);
    let uniform = f32::cast_from(u32::cast_from(z >> 40u64)) / 16_777_216.0f32;
    select(uniform < mask.probability, 0.0f32, mask.kept)
}
