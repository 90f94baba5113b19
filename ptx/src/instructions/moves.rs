//! Moves between registers and memory.

use std::sync::Arc;

use super::{Action, Opcode, lane_wise, listed};
use crate::fault::Problem;
use crate::machine::step::Space;
use crate::parse::operand::Operand;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    match opcode.name() {
        "mov" => mov(opcode, operands),
        // Every space has a window of its own: its addresses are generic ones already.
        "cvta" => lane_wise(operands, |[a]| a),
        "ld" | "ldu" => load(opcode, operands),
        "st" => store(opcode, operands),
        "prefetch" | "prefetchu" => Some(Arc::new(|_| Ok(()))),
        _ => None,
    }
}

/// The state space that an opcode names.
pub(super) fn space(opcode: &Opcode) -> Space {
    let found = opcode.modifiers().find_map(|word| {
        Some(match word.split("::").next().unwrap_or(word) {
            "global" => Space::Global,
            "shared" => Space::Shared,
            "local" => Space::Local,
            "const" => Space::Constant,
            "param" => Space::Parameter,
            _ => return None,
        })
    });
    found.unwrap_or(Space::Generic)
}

fn mov(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let kind = opcode.kind()?;
    let [out, input] = operands else { return None };
    let (outs, inputs) = (listed(out), listed(input));
    if outs.len() == 1 && inputs.len() == 1 {
        let mask = kind.mask();
        return lane_wise(operands, move |[a]| a & mask);
    }
    // One value from its parts, or parts from one value; the first part is the lowest.
    let part = kind.bits() / outs.len().max(inputs.len()) as u32;
    let mask = u64::MAX >> (64 - part.max(1));
    Some(Arc::new(move |step| {
        for lane in step.lanes() {
            let whole = inputs.iter().enumerate().fold(0, |whole, (i, input)| {
                let bits = step.get(input, lane);
                whole | if inputs.len() == 1 { bits } else { (bits & mask) << (part * i as u32) }
            });
            for (i, out) in outs.iter().enumerate() {
                let value = if outs.len() == 1 { whole } else { whole >> (part * i as u32) & mask };
                step.set(out, lane, value);
            }
        }
        Ok(())
    }))
}

/// The modifiers of loads and stores that change nothing here, besides types and spaces.
fn is_plain(opcode: &Opcode) -> bool {
    opcode.modifiers().all(|word| !matches!(word, "acquire" | "release" | "mmio" | "b128" | "unified"))
}

fn load(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let (kind, space) = (opcode.kind()?, space(opcode));
    let [out, address] = operands else { return None };
    let (outs, address, bytes) = (listed(out), address.clone(), kind.bytes());
    is_plain(opcode).then(|| -> Action {
        Arc::new(move |step| {
            for lane in step.lanes() {
                let start = step.address(&address, lane, space);
                aligned(start, bytes * outs.len()).map_err(|problem| (lane, problem))?;
                for (i, out) in outs.iter().enumerate() {
                    let bits = step.load(lane, space, start.wrapping_add((i * bytes) as u64), bytes)?;
                    // Narrow integers are extended to the register's width.
                    step.set(out, lane, if kind.is_signed() { kind.integer(bits) as u64 } else { bits });
                }
            }
            Ok(())
        })
    })
}

fn store(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let (kind, space) = (opcode.kind()?, space(opcode));
    let [address, input] = operands else { return None };
    let (inputs, address, bytes) = (listed(input), address.clone(), kind.bytes());
    is_plain(opcode).then(|| -> Action {
        Arc::new(move |step| {
            let mut written: Vec<(u64, u64)> = Vec::with_capacity(32 * inputs.len());
            for lane in step.lanes() {
                let start = step.address(&address, lane, space);
                aligned(start, bytes * inputs.len()).map_err(|problem| (lane, problem))?;
                for (i, input) in inputs.iter().enumerate() {
                    let (at, value) =
                        (start.wrapping_add((i * bytes) as u64), step.get(input, lane) & kind.mask());
                    step.store(lane, space, at, bytes, value)?;
                    written.push((at, value));
                }
            }
            // Lanes of a warp have the same local addresses, in memory of their own.
            if space != Space::Local {
                written.sort_unstable();
                if let Some(pair) =
                    written.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1)
                {
                    return Err((0, Problem::Collision { address: pair[0].0 }));
                }
            }
            Ok(())
        })
    })
}

/// A vector lies on a multiple of its whole length.
fn aligned(address: u64, bytes: usize) -> Result<(), Problem> {
    if address.is_multiple_of(bytes as u64) { Ok(()) } else { Err(Problem::Misaligned { address, bytes }) }
}
