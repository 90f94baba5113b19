//! Integer arithmetic.

use super::{Action, Opcode, lane_wise};
use crate::parse::operand::Operand;
use crate::types::Type;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let kind = opcode.kind().filter(|kind| kind.is_integer())?;
    // Carries and saturation would need more than is here.
    if opcode.has("cc") || opcode.has("sat") {
        return None;
    }
    let two = |f: fn(i128, i128) -> i128| {
        lane_wise(operands, move |[a, b]| f(kind.integer(a), kind.integer(b)) as u64 & kind.mask())
    };
    let one = |f: fn(i128) -> i128| lane_wise(operands, move |[a]| f(kind.integer(a)) as u64 & kind.mask());
    match opcode.name() {
        "add" => two(|a, b| a + b),
        "sub" => two(|a, b| a - b),
        "min" => two(i128::min),
        "max" => two(i128::max),
        // What a division by zero gives is not stated: all ones is what GPUs do.
        "div" => two(|a, b| a.checked_div(b).unwrap_or(-1)),
        "rem" => two(|a, b| a.checked_rem(b).unwrap_or(a)),
        "neg" => one(|a| -a),
        "abs" => one(i128::abs),
        "mul" => {
            let product = Product::new(opcode, kind)?;
            lane_wise(operands, move |[a, b]| product.of(a, b) as u64 & product.mask())
        }
        "mad" => {
            let product = Product::new(opcode, kind)?;
            lane_wise(operands, move |[a, b, c]| {
                (product.of(a, b) + product.addend(c)) as u64 & product.mask()
            })
        }
        "sad" => lane_wise(operands, move |[a, b, c]| {
            ((kind.integer(a) - kind.integer(b)).abs() + kind.integer(c)) as u64 & kind.mask()
        }),
        _ => None,
    }
}

/// Which part of a product is kept.
#[derive(Clone, Copy)]
struct Product {
    kind: Type,
    wide: bool,
    high: bool,
}

impl Product {
    fn new(opcode: &Opcode, kind: Type) -> Option<Self> {
        let (wide, high) = (opcode.has("wide"), opcode.has("hi"));
        (wide || high || opcode.has("lo")).then_some(Self { kind, wide, high })
    }

    fn of(self, a: u64, b: u64) -> i128 {
        // 64-bit factors: the product of two unsigned ones needs all 128 bits, and keeps them.
        let product = self.kind.integer(a).wrapping_mul(self.kind.integer(b));
        match self.high {
            true if self.kind.is_signed() => product >> self.kind.bits(),
            true => (product as u128 >> self.kind.bits()) as i128,
            false => product,
        }
    }

    fn mask(self) -> u64 {
        u64::MAX >> (64 - (self.kind.bits() << u32::from(self.wide)).min(64))
    }

    fn addend(self, c: u64) -> i128 {
        i128::from(c & self.mask())
    }
}
