//! The matrix unit with opaque fragments: `wmma.load`, `wmma.mma` and `wmma.store`.
//!
//! Which lane holds what is not specified, so any layout will do: element `i` of lane `l` is number `l * n + i` of the
//! matrix in row order, two 16-bit elements a register. (f16 fragments have eight registers of which half would do:
//! the first hold the elements.)

use std::sync::Arc;

use super::matrix::{element, narrow};
use super::narrow::Narrow;
use super::{Action, Opcode, listed, moves};
use crate::machine::step::{Space, Step};
use crate::machine::warp::LANES;
use crate::parse::operand::Operand;
use crate::types::Type;

pub(super) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    if opcode.name() != "wmma" {
        return None;
    }
    match opcode.modifiers().next()? {
        "load" => load(opcode, operands),
        "store" => store(opcode, operands),
        "mma" => product(opcode, operands),
        _ => None,
    }
}

/// Rows, columns and inner size of `m16n16k16` and its like.
fn shape(opcode: &Opcode) -> Option<[usize; 3]> {
    match opcode.modifiers().find(|word| word.starts_with('m') && word.contains('n'))? {
        "m16n16k16" => Some([16, 16, 16]),
        "m32n8k16" => Some([32, 8, 16]),
        "m8n32k16" => Some([8, 32, 16]),
        _ => None,
    }
}

/// One fragment in memory: its sizes, its elements and how it lies.
#[derive(Clone)]
struct Tile {
    rows: usize,
    columns: usize,
    bytes: usize,
    row_major: bool,
    space: Space,
    address: Operand,
    stride: Option<Operand>,
}

impl Tile {
    fn new(opcode: &Opcode, operand: &str, address: &Operand, stride: Option<&Operand>) -> Option<Self> {
        let [m, n, k] = shape(opcode)?;
        let (rows, columns) = match operand {
            "a" => (m, k),
            "b" => (k, n),
            _ => (m, n),
        };
        let kind = opcode.kind()?;
        let fits =
            if matches!(operand, "a" | "b") { narrow(kind).is_some() } else { kind == Type::Float(32) };
        fits.then(|| Self {
            rows,
            columns,
            bytes: kind.bytes(),
            row_major: opcode.has("row"),
            space: moves::space(opcode),
            address: address.clone(),
            stride: stride.cloned(),
        })
    }

    /// Where an element lies. The address and stride are the same in all lanes.
    fn at(&self, step: &Step, number: usize) -> u64 {
        let (row, column) = (number / self.columns, number % self.columns);
        let (line, place) = if self.row_major { (row, column) } else { (column, row) };
        let length = if self.row_major { self.columns } else { self.rows };
        let stride = self.stride.as_ref().map_or(length as u64, |stride| step.get(stride, 0) & 0xffff_ffff);
        let start = step.address(&self.address, 0, self.space);
        start.wrapping_add((line as u64 * stride + place as u64) * self.bytes as u64)
    }
}

/// `wmma.load.{a|b|c}.sync.aligned.layout.shape.space.type r, [p], stride`.
fn load(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let [out, address, stride @ ..] = operands else { return None };
    let tile = Tile::new(opcode, opcode.modifiers().nth(1)?, address, stride.first())?;
    let outs = listed(out);
    let (each, in_one) = (tile.rows * tile.columns / LANES, 4 / tile.bytes);
    (outs.len() * in_one >= each).then(|| -> Action {
        Arc::new(move |step| {
            step.whole_warp()?;
            for lane in 0..LANES {
                for (i, out) in outs.iter().enumerate().take(each / in_one) {
                    let mut value = 0;
                    for part in 0..in_one {
                        let at = tile.at(step, lane * each + i * in_one + part);
                        value |= step.load(lane, tile.space, at, tile.bytes)? << (16 * part);
                    }
                    step.set(out, lane, value);
                }
            }
            Ok(())
        })
    })
}

/// `wmma.store.d.sync.aligned.layout.shape.space.f32 [p], r, stride`.
fn store(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let [address, input, stride @ ..] = operands else { return None };
    let tile = Tile::new(opcode, "d", address, stride.first())?;
    let inputs = listed(input);
    (inputs.len() == tile.rows * tile.columns / LANES).then(|| -> Action {
        Arc::new(move |step| {
            step.whole_warp()?;
            for lane in 0..LANES {
                for (i, input) in inputs.iter().enumerate() {
                    let at = tile.at(step, lane * inputs.len() + i);
                    let value = step.get(input, lane) & 0xffff_ffff;
                    step.store(lane, tile.space, at, tile.bytes, value)?;
                }
            }
            Ok(())
        })
    })
}

/// `wmma.mma.sync.aligned.{row|col}.{row|col}.shape.types d, a, b, c`: the layouts are those of the loads.
fn product(opcode: &Opcode, operands: &[Operand]) -> Option<Action> {
    let [m, n, k] = shape(opcode)?;
    let types = opcode.types();
    // f16 inputs are not named: `.f32.f32` are the types of D and C.
    let narrow = match types.as_slice() {
        [Type::Float(32), Type::Brain, Type::Brain, Type::Float(32)] => Narrow::Brain,
        [Type::Float(32), Type::Float(32)] => Narrow::Half,
        _ => return None,
    };
    let [d, a, b, c] = operands else { return None };
    let [d, a, b, c] = [d, a, b, c].map(listed);
    let each = m * n / LANES;
    if d.len() != each || c.len() != each || a.len() < m * k / 64 || b.len() < k * n / 64 {
        return None;
    }
    Some(Arc::new(move |step| {
        step.whole_warp()?;
        let left = gather(step, &a, m * k, narrow);
        let right = gather(step, &b, k * n, narrow);
        for lane in 0..LANES {
            let sums: Vec<f32> = (0..each)
                .map(|i| {
                    let (row, column) = ((lane * each + i) / n, (lane * each + i) % n);
                    let start = f64::from(f32::from_bits(step.get(&c[i], lane) as u32));
                    (0..k).fold(start, |sum, inner| sum + left[row * k + inner] * right[inner * n + column])
                        as f32
                })
                .collect();
            for (d, sum) in d.iter().zip(sums) {
                step.set(d, lane, sum.to_bits().into());
            }
        }
        Ok(())
    }))
}

/// The elements of a 16-bit fragment in row order.
fn gather(step: &Step, registers: &[Operand], count: usize, narrow: Narrow) -> Vec<f64> {
    let each = count / LANES;
    let elements = (0..count).map(|number| {
        let (lane, i) = (number / each, number % each);
        element(step, &registers[i / 2], lane, i % 2, narrow)
    });
    elements.collect()
}
