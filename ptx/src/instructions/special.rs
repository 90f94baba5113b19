//! Functions that a GPU approximates: computed in f64 here and rounded once.
//!
//! The manual's bounds: `rcp`, `sqrt`, `rsqrt` 1 ulp or 2^-23, `ex2` 2 ulp + 2^-22, `lg2` 2^-22 absolute near 1,
//! `tanh` 2^-11, `sin` and `cos` 2^-20 inside of a period.

use std::f64::consts::PI;

use super::{Action, Opcode, lane_wise};
use crate::parse::operand::Operand;
use crate::types::Type;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    if opcode.kind()? != Type::Float(32) || !opcode.has("approx") {
        return None;
    }
    let f: fn(f64) -> f64 = match opcode.name() {
        "ex2" => f64::exp2,
        "lg2" => f64::log2,
        "rcp" => |a| 1.0 / a,
        "rsqrt" => |a| 1.0 / a.sqrt(),
        "tanh" => f64::tanh,
        "sin" => |a| (a % (2.0 * PI)).sin(),
        "cos" => |a| (a % (2.0 * PI)).cos(),
        _ => return None,
    };
    lane_wise(operands, move |[a]| {
        let value = f(f64::from(f32::from_bits(a as u32))) as f32;
        value.to_bits().into()
    })
}
