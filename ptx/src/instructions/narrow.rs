//! bf16 and f16 arithmetic, alone and in pairs. Results are exact before they are rounded once.

use half::{bf16, f16};

use super::{Action, Opcode, lane_wise};
use crate::parse::operand::Operand;
use crate::types::Type;

/// A 16-bit float format.
#[derive(Clone, Copy)]
pub(super) enum Narrow {
    Brain,
    Half,
}

impl Narrow {
    pub(super) fn read(self, bits: u64) -> f64 {
        match self {
            Self::Brain => bf16::from_bits(bits as u16).to_f64(),
            Self::Half => f16::from_bits(bits as u16).to_f64(),
        }
    }

    pub(super) fn write(self, value: f64) -> u64 {
        match self {
            Self::Brain => bf16::from_f32(odd(value)).to_bits().into(),
            Self::Half => f16::from_f32(odd(value)).to_bits().into(),
        }
    }
}

/// The f32 next to a value towards zero, its last bit set if it is another number: rounding that again to fewer bits
/// is right. (`half`'s own conversions from f64 forget the last 32 bits, and with them on which side of a tie it is.)
fn odd(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) == value || !near.is_finite() || !value.is_finite() {
        return near;
    }
    let towards_zero = near.to_bits() - u32::from(f64::from(near).abs() > value.abs());
    f32::from_bits(towards_zero | 1)
}

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let (narrow, pair) = match opcode.kind()? {
        Type::Brain => (Narrow::Brain, false),
        Type::BrainPair => (Narrow::Brain, true),
        Type::Float(16) => (Narrow::Half, false),
        Type::FloatPair => (Narrow::Half, true),
        _ => return None,
    };
    if opcode.has("sat") {
        return None;
    }
    let relu = opcode.has("relu");
    match opcode.name() {
        "add" => each(operands, narrow, pair, |[a, b]: [f64; 2]| a + b),
        "sub" => each(operands, narrow, pair, |[a, b]: [f64; 2]| a - b),
        "mul" => each(operands, narrow, pair, |[a, b]: [f64; 2]| a * b),
        "min" => each(operands, narrow, pair, |[a, b]: [f64; 2]| a.min(b)),
        "max" => each(operands, narrow, pair, |[a, b]: [f64; 2]| a.max(b)),
        "neg" => each(operands, narrow, pair, |[a]: [f64; 1]| -a),
        "abs" => each(operands, narrow, pair, |[a]: [f64; 1]| a.abs()),
        "ex2" => each(operands, narrow, pair, |[a]: [f64; 1]| a.exp2()),
        "tanh" => each(operands, narrow, pair, |[a]: [f64; 1]| a.tanh()),
        // The product of two such numbers is exact in f64; the sum is rounded there first, far below 16 bits.
        "fma" => each(operands, narrow, pair, move |[a, b, c]: [f64; 3]| {
            let sum = a.mul_add(b, c);
            if relu { sum.max(0.0) } else { sum }
        }),
        _ => None,
    }
}

fn each<const N: usize>(
    operands: &[Operand],
    narrow: Narrow,
    pair: bool,
    f: impl Fn([f64; N]) -> f64 + Send + Sync + 'static,
) -> Option<Action> {
    lane_wise(operands, move |values: [u64; N]| {
        let half =
            |shift: u32| narrow.write(f(values.map(|bits| narrow.read(bits >> shift & 0xffff)))) << shift;
        half(0) | if pair { half(16) } else { 0 }
    })
}
