//! Copies from global to shared memory that arrive later: `cp.async`.
//!
//! What they bring counts as unwritten until the thread waits for it, so that a missing wait is a fault.

use std::sync::Arc;

use super::{Action, Opcode};
use crate::machine::step::{Failed, Space, Step};
use crate::parse::operand::Operand;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    if opcode.name() != "cp" || !opcode.has("async") {
        return None;
    }
    match opcode.modifiers().nth(1)? {
        "ca" | "cg" => copy(operands),
        "commit_group" => Some(Arc::new(|step| {
            let issued = std::mem::take(&mut step.warp.issued);
            step.warp.groups.push(issued);
            Ok(())
        })),
        "wait_group" => {
            let [Operand::Immediate(left)] = operands else { return None };
            let left = *left as usize;
            Some(Arc::new(move |step| {
                let done = step.warp.groups.len().saturating_sub(left);
                step.warp
                    .groups
                    .drain(..done)
                    .flatten()
                    .collect::<Vec<_>>()
                    .into_iter()
                    .try_for_each(arrive(step))
            }))
        }
        "wait_all" => Some(Arc::new(|step| {
            let issued = std::mem::take(&mut step.warp.issued);
            let groups = std::mem::take(&mut step.warp.groups);
            groups.into_iter().flatten().chain(issued).try_for_each(arrive(step))
        })),
        _ => None,
    }
}

fn arrive<'a>(step: &'a mut Step) -> impl FnMut((usize, u64, usize, u64)) -> Result<(), Failed> + 'a {
    |(lane, address, bytes, value)| step.store(lane, Space::Shared, address, bytes, value)
}

/// `cp.async.{ca|cg}.shared.global [to], [from], bytes{, bytes that are read}`: the rest becomes zeros.
fn copy(operands: &[Operand]) -> Option<Action> {
    let [to, from, Operand::Immediate(bytes), rest @ ..] = operands else { return None };
    let (to, from, bytes) = (to.clone(), from.clone(), *bytes);
    let read = rest.first().cloned().unwrap_or(Operand::Immediate(bytes));
    [4, 8, 16].contains(&bytes).then(|| -> Action {
        Arc::new(move |step| {
            for lane in step.lanes() {
                let (to, from) = (step.address(&to, lane, Space::Shared), step.get(&from, lane));
                let read = step.get(&read, lane) & 0xffff_ffff;
                step.forget(lane, to, bytes as usize)?;
                for at in (0..bytes).step_by(4) {
                    let value = if at < read { step.load(lane, Space::Global, from + at, 4)? } else { 0 };
                    step.warp.issued.push((lane, to + at, 4, value));
                }
            }
            Ok(())
        })
    })
}
