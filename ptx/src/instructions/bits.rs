//! Logic, shifts and fields of bits.

use super::{Action, Opcode, lane_wise};
use crate::parse::operand::Operand;
use crate::types::Type;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let kind = opcode.kind()?;
    let (mask, bits) = (kind.mask(), u64::from(kind.bits()));
    let two = |f: fn(u64, u64) -> u64| lane_wise(operands, move |[a, b]| f(a, b) & mask);
    match opcode.name() {
        "and" => two(|a, b| a & b),
        "or" => two(|a, b| a | b),
        "xor" => two(|a, b| a ^ b),
        "not" => lane_wise(operands, move |[a]| !a & mask),
        "cnot" => lane_wise(operands, move |[a]| u64::from(a & mask == 0)),
        "shl" => lane_wise(operands, move |[a, by]| {
            let by = by & 0xffff_ffff;
            if by >= bits { 0 } else { a << by & mask }
        }),
        "shr" => lane_wise(operands, move |[a, by]| {
            (kind.integer(a) >> (by & 0xffff_ffff).min(bits)) as u64 & mask
        }),
        "shf" => funnel(opcode, operands),
        "lop3" => lane_wise(operands, |[a, b, c, table]| lop3(a, b, c, table)),
        "bfe" => lane_wise(operands, move |[a, start, len]| extract(kind, a, start & 255, len & 255)),
        "bfi" => lane_wise(operands, move |[a, b, start, len]| {
            let (start, len) = (start & 255, len & 255);
            let field = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
            let field = if start >= 64 { 0 } else { field << start };
            ((if start >= 64 { 0 } else { a << start }) & field | b & !field) & mask
        }),
        "popc" => lane_wise(operands, move |[a]| (a & mask).count_ones().into()),
        "clz" => lane_wise(operands, move |[a]| u64::from((a & mask).leading_zeros()) - (64 - bits)),
        "brev" => lane_wise(operands, move |[a]| (a & mask).reverse_bits() >> (64 - bits)),
        "prmt" if opcode.modifiers().count() == 1 => {
            lane_wise(operands, |[a, b, selector]| permute(a, b, selector))
        }
        _ => None,
    }
}

fn extract(kind: Type, a: u64, start: u64, len: u64) -> u64 {
    let bits = u64::from(kind.bits());
    let a = a & kind.mask();
    if len == 0 {
        return 0;
    }
    let field = if start >= bits { 0 } else { a >> start };
    let value = if len >= 64 { field } else { field & ((1 << len) - 1) };
    let sign = a >> (start + len - 1).min(bits - 1) & 1;
    let fill = if len >= 64 { 0 } else { u64::MAX << len };
    (if kind.is_signed() && sign == 1 { value | fill } else { value }) & kind.mask()
}

fn funnel(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let (left, clamp) = (opcode.has("l"), opcode.has("clamp"));
    lane_wise(operands, move |[low, high, by]| {
        let both = (high & 0xffff_ffff) << 32 | low & 0xffff_ffff;
        let by = by & 0xffff_ffff;
        let by = if clamp { by.min(32) } else { by & 31 };
        (if left { both << by >> 32 } else { both >> by }) & 0xffff_ffff
    })
}

/// Each bit is looked up in a table of eight.
fn lop3(a: u64, b: u64, c: u64, table: u64) -> u64 {
    let mut out = 0;
    for index in 0..8 {
        if table >> index & 1 == 1 {
            let pick = |value: u64, bit: u64| if index >> bit & 1 == 1 { value } else { !value };
            out |= pick(a, 2) & pick(b, 1) & pick(c, 0);
        }
    }
    out & 0xffff_ffff
}

/// Four bytes chosen from eight; the highest bit of a choice repeats the sign.
fn permute(a: u64, b: u64, selector: u64) -> u64 {
    let both = (b & 0xffff_ffff) << 32 | a & 0xffff_ffff;
    (0..4).fold(0, |out, i| {
        let choice = selector >> (4 * i) & 15;
        let byte = both >> (8 * (choice & 7)) & 255;
        let byte = if choice & 8 == 0 { byte } else { (byte >> 7) * 255 };
        out | byte << (8 * i)
    })
}
