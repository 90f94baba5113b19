//! What instructions do, one file a group. Each is turned into a closure once, when the text is read.

mod asynchronous;
mod bits;
mod compare;
mod convert;
mod float;
mod integer;
mod matrix;
mod moves;
mod narrow;
mod plane;
mod special;
#[cfg(test)]
mod tests;
mod wmma;

use std::fmt;
use std::sync::Arc;

use crate::machine::step::{Failed, Step};
use crate::parse::operand::Operand;
use crate::types::Type;

/// What an instruction does to the lanes that execute it.
pub(crate) type Action = Arc<dyn Fn(&mut Step) -> Result<(), Failed> + Send + Sync>;

/// The effect of an instruction.
#[derive(Clone)]
pub(crate) enum Effect {
    /// Registers and memory change.
    Plain(Action),
    /// The lanes go on at another place.
    Branch(usize),
    /// The lanes end.
    Return,
    /// The lanes wait for all threads of the block.
    Barrier,
    /// None.
    Nothing,
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Branch(_) => "Branch",
            Self::Return => "Return",
            Self::Barrier => "Barrier",
            Self::Nothing => "Nothing",
        })
    }
}

/// An opcode with its modifiers: `ld.global.nc.v4.u32`.
#[derive(Clone, Debug)]
pub(crate) struct Opcode {
    words: Vec<String>,
}

impl Opcode {
    pub(crate) fn new(text: &str) -> Self {
        Self { words: text.split('.').filter(|word| !word.is_empty()).map(str::to_owned).collect() }
    }

    /// The first word.
    pub(crate) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Whether a modifier is there.
    fn has(&self, word: &str) -> bool {
        self.words.iter().skip(1).any(|one| one == word)
    }

    /// The modifiers.
    fn modifiers(&self) -> impl Iterator<Item = &str> {
        self.words.iter().skip(1).map(String::as_str)
    }

    /// The types that are named, in order.
    fn types(&self) -> Vec<Type> {
        self.modifiers().filter_map(Type::parse).collect()
    }

    /// The last type that is named.
    fn kind(&self) -> Option<Type> {
        self.types().last().copied()
    }
}

/// Turns an instruction into its effect; none if it is not modelled.
pub(crate) fn decode(opcode: &Opcode, operands: &[Operand]) -> Option<Effect> {
    match opcode.name() {
        "ret" | "exit" => return Some(Effect::Return),
        "bar" | "barrier" if opcode.has("warp") => return Some(Effect::Plain(plane::synchronise())),
        // A barrier of some of the threads has more operands; of another name, another number.
        "bar" | "barrier" if opcode.has("sync") => {
            return (operands == [Operand::Immediate(0)]).then_some(Effect::Barrier);
        }
        // One block at a time runs here, in order.
        "membar" | "fence" => return Some(Effect::Nothing),
        _ => {}
    }
    let groups = [
        moves::decode,
        integer::decode,
        bits::decode,
        float::decode,
        narrow::decode,
        special::decode,
        compare::decode,
        convert::decode,
        plane::decode,
        matrix::decode,
        wmma::decode,
        asynchronous::decode,
    ];
    groups.iter().find_map(|group| group(opcode, operands)).map(Effect::Plain)
}

/// An action that computes each lane's value from its operands' raw bits.
fn lane_wise<const N: usize>(
    operands: &[Operand],
    f: impl Fn([u64; N]) -> u64 + Send + Sync + 'static,
) -> Option<Action> {
    let (out, inputs) = operands.split_first()?;
    let (out, inputs): (Operand, [Operand; N]) = (out.clone(), inputs.to_vec().try_into().ok()?);
    Some(Arc::new(move |step| {
        for lane in step.lanes() {
            let value = f(std::array::from_fn(|i| step.get(&inputs[i], lane)));
            step.set(&out, lane, value);
        }
        Ok(())
    }))
}

/// The registers that a vector operand lists, or the one operand itself.
fn listed(operand: &Operand) -> Vec<Operand> {
    match operand {
        Operand::Vector(list) => list.clone(),
        one => vec![one.clone()],
    }
}
