//! f32 and f64 arithmetic with IEEE rounding.

use super::{Action, Opcode, lane_wise};
use crate::parse::operand::Operand;
use crate::types::Type;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let kind = opcode.kind()?;
    // What `expf` is made of.
    if opcode.name() == "fma" && opcode.has("rm") && kind == Type::Float(32) && !opcode.has("sat") {
        return lane_wise(operands, |values: [u64; 3]| {
            u64::from(rounded_down(values.map(|bits| f32::from_bits(bits as u32))).to_bits())
        });
    }
    // Else only rounding to nearest even; `.full` and `.approx` divisions may differ from it by 2 ulp.
    if ["rz", "rm", "rp", "sat"].iter().any(|word| opcode.has(word)) {
        return None;
    }
    match kind {
        Type::Float(32) => single(opcode, operands),
        Type::Float(64) => double(opcode, operands),
        _ => None,
    }
}

/// `a * b + c`, rounded towards minus infinity.
fn rounded_down([a, b, c]: [f32; 3]) -> f32 {
    // The product is exact in f64, and so is the sum as a value and what its rounding left out (Knuth's two-sum).
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let of_c = sum - product;
    let rest = (product - (sum - of_c)) + (c - of_c);
    let near = sum as f32;
    let above = f64::from(near) > sum || f64::from(near) == sum && rest < 0.0;
    if above { near.next_down() } else { near }
}

/// Zero for what is below the smallest normal number, where an instruction says so.
fn flush(value: f32, ftz: bool) -> f32 {
    if ftz && value.is_subnormal() { 0.0f32.copysign(value) } else { value }
}

fn single(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let ftz = opcode.has("ftz");
    let from = move |bits: u64| flush(f32::from_bits(bits as u32), ftz);
    let to = move |value: f32| u64::from(flush(value, ftz).to_bits());
    let one = |f: fn(f32) -> f32| lane_wise(operands, move |[a]| to(f(from(a))));
    let two = |f: fn(f32, f32) -> f32| lane_wise(operands, move |[a, b]| to(f(from(a), from(b))));
    match opcode.name() {
        "add" => two(|a, b| a + b),
        "sub" => two(|a, b| a - b),
        "mul" => two(|a, b| a * b),
        "div" => two(|a, b| a / b),
        "fma" | "mad" => lane_wise(operands, move |[a, b, c]| to(from(a).mul_add(from(b), from(c)))),
        "neg" => one(|a| -a),
        "abs" => one(f32::abs),
        "min" if opcode.has("NaN") => two(|a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { a.min(b) }),
        "max" if opcode.has("NaN") => two(|a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) }),
        "min" => two(f32::min),
        "max" => two(f32::max),
        "sqrt" => one(f32::sqrt),
        "rcp" if opcode.has("rn") => one(|a| 1.0 / a),
        "copysign" => two(|sign, magnitude| magnitude.copysign(sign)),
        _ => None,
    }
}

fn double(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let one = |f: fn(f64) -> f64| lane_wise(operands, move |[a]| f(f64::from_bits(a)).to_bits());
    let two = |f: fn(f64, f64) -> f64| {
        lane_wise(operands, move |[a, b]| f(f64::from_bits(a), f64::from_bits(b)).to_bits())
    };
    match opcode.name() {
        "add" => two(|a, b| a + b),
        "sub" => two(|a, b| a - b),
        "mul" => two(|a, b| a * b),
        "div" => two(|a, b| a / b),
        "fma" => lane_wise(operands, |[a, b, c]| {
            f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits()
        }),
        "neg" => one(|a| -a),
        "abs" => one(f64::abs),
        "min" => two(f64::min),
        "max" => two(f64::max),
        "sqrt" => one(f64::sqrt),
        "rcp" => one(|a| 1.0 / a),
        _ => None,
    }
}
