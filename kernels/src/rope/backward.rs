//! The gradient: a rotation by the negative angle.
//!
//! A pair maps by `R = s [[cos, -sin], [sin, cos]]`, so `dx = R^T dy = s [[cos, sin], [-sin, cos]] dy`,
//! which is the same map with `-sin` for `sin`. The factor `s` stays (the gradient is the transpose, not the
//! inverse).

use super::{RopeTable, cpu};
use crate::attention::QkvLayout;
use crate::isa::Tier;

/// Turns `dqkv` of the output into that of the input, in place.
pub(super) fn rotate(tier: Tier, dqkv: &mut [f32], layout: QkvLayout, positions: &[u32], table: &RopeTable) {
    cpu::rotate_signed(tier, dqkv, layout, positions, table, -1.0);
}
