//! The arithmetic of `reference.rs`, compiled for each tier: no product is fused with a sum, so every tier has
//! the same bits.

use super::{GgmlType, reference};
use crate::isa::tiered;

tiered! {
    /// Decodes a run of whole blocks on the calling thread.
    pub(super) fn dequantize(ty: GgmlType, bytes: &[u8], out: &mut [f32]) = dequantize_body;
}

#[inline(always)]
fn dequantize_body<const FMA: bool, const WIDTH: usize>(ty: GgmlType, bytes: &[u8], out: &mut [f32]) {
    reference::dequantize(ty, bytes, out);
}
