//! Exchange between the lanes of a warp.

use std::sync::Arc;

use super::{Action, Opcode};
use crate::fault::Problem;
use crate::machine::step::{Failed, Step};
use crate::parse::operand::Operand;
use crate::types::Type;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    match opcode.name() {
        "shfl" if opcode.has("sync") => shuffle(opcode, operands),
        "vote" if opcode.has("sync") => vote(opcode, operands),
        "redux" if opcode.has("sync") => reduce(opcode, operands),
        "activemask" => {
            let [out] = operands else { return None };
            let out = out.clone();
            Some(Arc::new(move |step| {
                let active = step.active.into();
                step.lanes().for_each(|lane| step.set(&out, lane, active));
                Ok(())
            }))
        }
        _ => None,
    }
}

/// `bar.warp.sync`: lanes run in step, so there is nothing to wait for.
pub(super) fn synchronise() -> Action {
    Arc::new(|_| Ok(()))
}

/// Fails where a lane that the mask names does not execute the instruction.
fn check(step: &Step, mask: &Operand) -> Result<(), Failed> {
    for lane in step.lanes() {
        let named = step.get(mask, lane) as u32;
        if named & !step.active != 0 || named >> lane & 1 == 0 {
            return Err((lane, Problem::Partial { active: step.active }));
        }
    }
    Ok(())
}

/// `shfl.sync.mode.b32 d|p, a, b, c, mask`; `c` holds the width of the parts and the last lane to read from.
fn shuffle(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let [out, value, by, clamp, mask] = operands else { return None };
    let (out, value, by, clamp, mask) = (out.clone(), value.clone(), by.clone(), clamp.clone(), mask.clone());
    let mode = opcode.modifiers().find(|word| ["up", "down", "bfly", "idx"].contains(word))?.to_owned();
    Some(Arc::new(move |step| {
        check(step, &mask)?;
        let values: [u64; 32] = std::array::from_fn(|lane| step.get(&value, lane));
        for lane in step.lanes() {
            let (by, clamp) = (step.get(&by, lane) & 31, step.get(&clamp, lane));
            let (here, segment, last) = (lane as u64, clamp >> 8 & 31, clamp & 31);
            let most = here & segment | last & !segment;
            let least = here & segment;
            let (from, inside) = match mode.as_str() {
                "up" => (here.wrapping_sub(by), here >= by + most),
                "down" => (here + by, here + by <= most),
                "bfly" => (here ^ by, here ^ by <= most),
                _ => (least | by & !segment, (least | by & !segment) <= most),
            };
            let from = if inside { from } else { here } as usize;
            if step.active >> from & 1 == 0 {
                return Err((lane, Problem::Partial { active: step.active }));
            }
            step.set(&out, lane, values[from]);
            step.set_predicate(&out, lane, inside);
        }
        Ok(())
    }))
}

fn vote(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let [out, predicate, mask] = operands else { return None };
    let (out, predicate, mask) = (out.clone(), predicate.clone(), mask.clone());
    let mode = opcode.modifiers().find(|word| ["all", "any", "uni", "ballot"].contains(word))?.to_owned();
    Some(Arc::new(move |step| {
        check(step, &mask)?;
        let yes =
            step.lanes().fold(0u32, |yes, lane| yes | ((step.get(&predicate, lane) & 1) as u32) << lane);
        let result = match mode.as_str() {
            "all" => u64::from(yes == step.active),
            "any" => u64::from(yes != 0),
            "uni" => u64::from(yes == step.active || yes == 0),
            _ => yes.into(),
        };
        step.lanes().for_each(|lane| step.set(&out, lane, result));
        Ok(())
    }))
}

/// `redux.sync.op.type d, a, mask`.
fn reduce(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let kind = opcode
        .kind()
        .filter(|kind| matches!(kind, Type::Unsigned(32) | Type::Signed(32) | Type::Bits(32)))?;
    let f: fn(i128, i128) -> i128 = match opcode.modifiers().nth(1)? {
        "add" => |a, b| a + b,
        "min" => i128::min,
        "max" => i128::max,
        "and" => |a, b| a & b,
        "or" => |a, b| a | b,
        "xor" => |a, b| a ^ b,
        _ => return None,
    };
    let [out, value, mask] = operands else { return None };
    let (out, value, mask) = (out.clone(), value.clone(), mask.clone());
    Some(Arc::new(move |step| {
        check(step, &mask)?;
        let values = step.lanes().map(|lane| kind.integer(step.get(&value, lane)));
        let result = values.reduce(f).unwrap_or(0) as u64 & kind.mask();
        step.lanes().for_each(|lane| step.set(&out, lane, result));
        Ok(())
    }))
}
