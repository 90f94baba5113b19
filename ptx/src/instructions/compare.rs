//! Comparisons and choices.

use std::cmp::Ordering;
use std::sync::Arc;

use super::narrow::Narrow;
use super::{Action, Opcode, lane_wise};
use crate::parse::operand::Operand;
use crate::types::Type;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    match opcode.name() {
        "selp" => lane_wise(operands, |[a, b, predicate]| if predicate & 1 == 1 { a } else { b }),
        "setp" => set_predicate(opcode, operands),
        "set" => {
            let (kind, relation) = (opcode.kind()?, Relation::find(opcode)?);
            let yes = if opcode.types().first()? == &Type::Float(32) { 0x3f80_0000 } else { 0xffff_ffff };
            lane_wise(operands, move |[a, b]| if relation.holds(kind, a, b) { yes } else { 0 })
        }
        _ => None,
    }
}

/// `setp.relation{.and|.or|.xor}.type p{|q}, a, b{, c}`.
fn set_predicate(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let (kind, relation) = (opcode.kind()?, Relation::find(opcode)?);
    let combine: fn(bool, bool) -> bool =
        match opcode.modifiers().find(|word| ["and", "or", "xor"].contains(word)) {
            None => |a, _| a,
            Some("and") => |a, c| a && c,
            Some("or") => |a, c| a || c,
            Some(_) => |a, c| a != c,
        };
    let [out, a, b, rest @ ..] = operands else { return None };
    let (out, a, b, c) = (out.clone(), a.clone(), b.clone(), rest.first().cloned().unwrap_or(Operand::Sink));
    Some(Arc::new(move |step| {
        for lane in step.lanes() {
            let holds = relation.holds(kind, step.get(&a, lane), step.get(&b, lane));
            let c = step.get(&c, lane) & 1 == 1;
            step.set(&out, lane, combine(holds, c).into());
            step.set_predicate(&out, lane, combine(!holds, c));
        }
        Ok(())
    }))
}

/// A relation: the orders in which it holds, and whether it does with a NaN.
#[derive(Clone, Copy)]
struct Relation {
    less: bool,
    equal: bool,
    greater: bool,
    unordered: bool,
}

impl Relation {
    fn find(opcode: &Opcode) -> Option<Self> {
        opcode.modifiers().find_map(|word| {
            let (name, unordered) = match word {
                "num" => return Some(Self { less: true, equal: true, greater: true, unordered: false }),
                "nan" => return Some(Self { less: false, equal: false, greater: false, unordered: true }),
                "equ" | "neu" | "ltu" | "leu" | "gtu" | "geu" => (&word[..2], true),
                word => (word, false),
            };
            let (less, equal, greater) = match name {
                "eq" => (false, true, false),
                "ne" => (true, false, true),
                "lt" | "lo" => (true, false, false),
                "le" | "ls" => (true, true, false),
                "gt" | "hi" => (false, false, true),
                "ge" | "hs" => (false, true, true),
                _ => return None,
            };
            Some(Self { less, equal, greater, unordered })
        })
    }

    fn holds(self, kind: Type, a: u64, b: u64) -> bool {
        let narrow = |narrow: Narrow| narrow.read(a & 0xffff).partial_cmp(&narrow.read(b & 0xffff));
        let order = match kind {
            Type::Float(32) => f32::from_bits(a as u32).partial_cmp(&f32::from_bits(b as u32)),
            Type::Float(64) => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
            Type::Brain => narrow(Narrow::Brain),
            Type::Float(16) => narrow(Narrow::Half),
            kind => Some(kind.integer(a).cmp(&kind.integer(b))),
        };
        match order {
            Some(Ordering::Less) => self.less,
            Some(Ordering::Equal) => self.equal,
            Some(Ordering::Greater) => self.greater,
            None => self.unordered,
        }
    }
}
