//! The matrix unit with fragments in registers: `mma.sync` and `ldmatrix`.
//!
//! Layout of m16n8k16 and m16n8k8 with 16-bit inputs (PTX ISA 9.7.14.5): lane `4 g + t` holds
//! - A: rows `g` and `g + 8`, columns `2 t` and `2 t + 1`, then the same 8 columns further;
//! - B: rows `2 t`, `2 t + 1`, then 8 rows further, column `g`;
//! - C and D: rows `g` and `g + 8`, columns `2 t` and `2 t + 1`.

use std::sync::Arc;

use super::narrow::Narrow;
use super::{Action, Opcode, listed};
use crate::machine::step::{Space, Step};
use crate::machine::warp::LANES;
use crate::parse::operand::Operand;
use crate::types::Type;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    match opcode.name() {
        "mma" => product(opcode, operands),
        "ldmatrix" => load(opcode, operands),
        _ => None,
    }
}

/// The format of a 16-bit element.
pub(super) fn narrow(kind: Type) -> Option<Narrow> {
    match kind {
        Type::Brain => Some(Narrow::Brain),
        Type::Float(16) => Some(Narrow::Half),
        _ => None,
    }
}

/// One half of a 32-bit register that holds two elements.
pub(super) fn element(step: &Step, register: &Operand, lane: usize, high: usize, narrow: Narrow) -> f64 {
    narrow.read(step.get(register, lane) >> (16 * high) & 0xffff)
}

/// `mma.sync.aligned.shape.row.col.f32.{bf16|f16}.{bf16|f16}.f32 d, a, b, c`.
fn product(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let depth = match opcode.modifiers().find(|word| word.starts_with('m'))? {
        "m16n8k16" => 16,
        "m16n8k8" => 8,
        _ => return None,
    };
    let types = opcode.types();
    let narrow = narrow(*types.get(1)?)?;
    if types != [Type::Float(32), types[1], types[1], Type::Float(32)]
        || !opcode.has("row")
        || !opcode.has("col")
    {
        return None;
    }
    let [d, a, b, c] = operands else { return None };
    let [d, a, b, c] = [d, a, b, c].map(listed);
    if (a.len(), b.len(), c.len(), d.len()) != (depth / 4, depth / 8, 4, 4) {
        return None;
    }
    Some(Arc::new(move |step| {
        step.whole_warp()?;
        let mut left = [[0.0; 16]; 16];
        let mut right = [[0.0; 8]; 16];
        for lane in 0..LANES {
            let (g, t) = (lane / 4, lane % 4);
            for i in 0..2 * a.len() {
                let (row, column) = (g + 8 * (i / 2 % 2), 2 * t + i % 2 + 8 * (i / 4));
                left[row][column] = element(step, &a[i / 2], lane, i % 2, narrow);
            }
            for i in 0..2 * b.len() {
                right[2 * t + i % 2 + 8 * (i / 2)][g] = element(step, &b[i / 2], lane, i % 2, narrow);
            }
        }
        for lane in 0..LANES {
            let (g, t) = (lane / 4, lane % 4);
            let sums: Vec<f32> = (0..4)
                .map(|i| {
                    let (row, column) = (g + 8 * (i / 2), 2 * t + i % 2);
                    let start = f64::from(f32::from_bits(step.get(&c[i], lane) as u32));
                    (0..depth).fold(start, |sum, k| sum + left[row][k] * right[k][column]) as f32
                })
                .collect();
            for (d, sum) in d.iter().zip(sums) {
                step.set(d, lane, sum.to_bits().into());
            }
        }
        Ok(())
    }))
}

/// `ldmatrix.sync.aligned.m8n8.{x1|x2|x4}{.trans}.shared.b16 r, [p]`: lane `8 i + j` gives the address of row `j` of
/// matrix `i`.
fn load(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let count = ["x1", "x2", "x4"].iter().position(|word| opcode.has(word)).map(|at| 1 << at)?;
    let transposed = opcode.has("trans");
    let [out, address] = operands else { return None };
    let (outs, address) = (listed(out), address.clone());
    (outs.len() == count && opcode.has("m8n8") && opcode.has("b16")).then(|| -> Action {
        Arc::new(move |step| {
            step.whole_warp()?;
            for (matrix, out) in outs.iter().enumerate() {
                let mut rows = [[0u64; 8]; 8];
                for (j, row) in rows.iter_mut().enumerate() {
                    let lane = 8 * matrix + j;
                    let start = step.address(&address, lane, Space::Shared);
                    for (k, value) in row.iter_mut().enumerate() {
                        *value = step.load(lane, Space::Shared, start.wrapping_add(2 * k as u64), 2)?;
                    }
                }
                for lane in 0..LANES {
                    let (row, column) = (lane / 4, 2 * (lane % 4));
                    let at = |row: usize, column: usize| {
                        if transposed { rows[column][row] } else { rows[row][column] }
                    };
                    step.set(out, lane, at(row, column) | at(row, column + 1) << 16);
                }
            }
            Ok(())
        })
    })
}
