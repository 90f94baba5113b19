//! Conversions between types.

use super::narrow::Narrow;
use super::{Action, Opcode, lane_wise};
use crate::parse::operand::Operand;
use crate::types::Type;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    if opcode.name() != "cvt" {
        return None;
    }
    let types = opcode.types();
    let (to, from) = (*types.first()?, *types.get(1)?);
    if opcode.has("sat") {
        // Into 0 to 1; other saturations are not modelled.
        return if to == Type::Float(32) && from == to {
            lane_wise(operands, |[a]| saturated(a))
        } else {
            None
        };
    }
    if let Type::BrainPair | Type::FloatPair = to {
        let narrow = if to == Type::BrainPair { Narrow::Brain } else { Narrow::Half };
        let round = rounding(opcode)?;
        return lane_wise(operands, move |[high, low]| {
            let one = |bits: u64| narrow.write(round(f64::from(f32::from_bits(bits as u32))));
            one(high) << 16 | one(low)
        });
    }
    let round = rounding(opcode)?;
    match (from.is_integer(), to.is_integer()) {
        (true, true) => lane_wise(operands, move |[a]| from.integer(a) as u64 & to.mask()),
        (true, false) => lane_wise(operands, move |[a]| from_integer(from.integer(a), to)),
        (false, true) => lane_wise(operands, move |[a]| to_integer(round(read(from, a)), to)),
        (false, false) => lane_wise(operands, move |[a]| write(to, round(read(from, a)))),
    }
}

/// An f32 brought into 0 to 1; NaN becomes 0.
fn saturated(bits: u64) -> u64 {
    let value = f32::from_bits(bits as u32);
    u64::from((if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }).to_bits())
}

/// What is done to a float before it is converted. Rounding to nearest even is what conversions do anyhow; the other
/// directions are only modelled where the result is an integer.
fn rounding(opcode: &Opcode) -> Option<fn(f64) -> f64> {
    for word in opcode.modifiers() {
        match word {
            "rni" => return Some(f64::round_ties_even),
            "rzi" => return Some(f64::trunc),
            "rmi" => return Some(f64::floor),
            "rpi" => return Some(f64::ceil),
            "rz" | "rm" | "rp" | "rna" | "relu" | "ftz" | "satfinite" => return None,
            _ => {}
        }
    }
    Some(|value| value)
}

fn read(kind: Type, bits: u64) -> f64 {
    match kind {
        Type::Float(64) => f64::from_bits(bits),
        Type::Float(16) => Narrow::Half.read(bits & 0xffff),
        Type::Brain => Narrow::Brain.read(bits & 0xffff),
        _ => f64::from(f32::from_bits(bits as u32)),
    }
}

fn write(kind: Type, value: f64) -> u64 {
    match kind {
        Type::Float(64) => value.to_bits(),
        Type::Float(16) => Narrow::Half.write(value),
        Type::Brain => Narrow::Brain.write(value),
        _ => u64::from((value as f32).to_bits()),
    }
}

fn from_integer(value: i128, to: Type) -> u64 {
    match to {
        Type::Float(64) => (value as f64).to_bits(),
        Type::Float(32) => u64::from((value as f32).to_bits()),
        narrow => write(narrow, value as f64),
    }
}

/// Values outside of the type's range become its ends, NaN becomes 0: as `cvt` with an integer target does.
fn to_integer(value: f64, to: Type) -> u64 {
    let bits = to.bits();
    let (least, most) = if to.is_signed() {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    };
    (value as i128).clamp(least, most) as u64 & to.mask()
}
