//! Operands of an instruction.

use super::scan::commas;

/// What an instruction reads or writes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A register, or a predicate.
    Register(usize),
    /// The opposite of a predicate.
    Not(usize),
    /// Raw bits; integers with their sign extended.
    Immediate(u64),
    /// A register that the hardware sets.
    Special(Special),
    /// `{a, b}`.
    Vector(Vec<Self>),
    /// `[base + offset]`; the base is a register, or the offset is the whole address.
    Address(Option<usize>, i64),
    /// `d|p`: a value and a predicate.
    Pair(Option<usize>, Option<usize>),
    /// `_`: not wanted.
    Sink,
}

/// Registers that the hardware sets. The number is the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
    Lane,
    Warp,
    Warps,
    /// Lanes before this one; the flag counts this one in.
    Before(bool),
    /// Lanes after this one; the flag counts this one in.
    After(bool),
    DynamicShared,
}

impl Special {
    fn parse(text: &str) -> Option<Self> {
        let (name, axis) = text.split_once('.').unwrap_or((text, ""));
        let axis = ["x", "y", "z"].iter().position(|letter| *letter == axis);
        Some(match (name, axis) {
            ("%tid", Some(axis)) => Self::Thread(axis),
            ("%ntid", Some(axis)) => Self::Threads(axis),
            ("%ctaid", Some(axis)) => Self::Block(axis),
            ("%nctaid", Some(axis)) => Self::Blocks(axis),
            ("%laneid", None) => Self::Lane,
            ("%warpid", None) => Self::Warp,
            ("%nwarpid", None) => Self::Warps,
            ("%lanemask_lt", None) => Self::Before(false),
            ("%lanemask_le", None) => Self::Before(true),
            ("%lanemask_gt", None) => Self::After(false),
            ("%lanemask_ge", None) => Self::After(true),
            ("%dynamic_smem_size", None) => Self::DynamicShared,
            _ => return None,
        })
    }
}

/// What names stand for where an operand is.
pub(super) trait Names {
    /// Number of a register.
    fn register(&self, name: &str) -> Option<usize>;
    /// Address of a variable.
    fn address(&self, name: &str) -> Option<u64>;
}

/// Reads one operand; `Err` holds the part that is not understood.
pub(super) fn parse(text: &str, names: &impl Names) -> Result<Operand, String> {
    let text = text.trim();
    if text == "_" {
        return Ok(Operand::Sink);
    }
    if let Some(inner) = between(text, '{', '}') {
        return commas(inner)
            .into_iter()
            .map(|part| parse(part, names))
            .collect::<Result<_, _>>()
            .map(Operand::Vector);
    }
    if let Some(inner) = between(text, '[', ']') {
        return address(inner, names);
    }
    if let Some((value, predicate)) = text.split_once('|') {
        let side = |name: &str| match name.trim() {
            "_" => Ok(None),
            name => names.register(name).map(Some).ok_or_else(|| name.to_owned()),
        };
        return Ok(Operand::Pair(side(value)?, side(predicate)?));
    }
    if let Some(predicate) = text.strip_prefix('!') {
        return names.register(predicate.trim()).map(Operand::Not).ok_or_else(|| text.to_owned());
    }
    if let Some(register) = names.register(text) {
        return Ok(Operand::Register(register));
    }
    if let Some(special) = Special::parse(text) {
        return Ok(Operand::Special(special));
    }
    let value = immediate(text).or_else(|| names.address(text));
    value.map(Operand::Immediate).ok_or_else(|| text.to_owned())
}

fn between(text: &str, open: char, close: char) -> Option<&str> {
    text.strip_prefix(open)?.strip_suffix(close)
}

fn address(text: &str, names: &impl Names) -> Result<Operand, String> {
    let (base, offset) = match text.split_once('+') {
        Some((base, offset)) => (base.trim(), offset.trim()),
        None => (text.trim(), "0"),
    };
    let offset = immediate(offset).ok_or_else(|| offset.to_owned())? as i64;
    if let Some(register) = names.register(base) {
        return Ok(Operand::Address(Some(register), offset));
    }
    let base = names.address(base).or_else(|| immediate(base)).ok_or_else(|| base.to_owned())?;
    Ok(Operand::Address(None, (base as i64).wrapping_add(offset)))
}

/// Reads a literal: an integer, or the bits of a float (`0f3F800000`, `0d3FF0000000000000`).
pub(super) fn immediate(text: &str) -> Option<u64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let digits = digits.strip_suffix('U').unwrap_or(digits);
    let value = match digits.split_at_checked(2) {
        Some(("0f" | "0F" | "0d" | "0D" | "0x" | "0X", hex)) => u64::from_str_radix(hex, 16).ok()?,
        Some(("0b", binary)) => u64::from_str_radix(binary, 2).ok()?,
        _ if digits == "WARP_SZ" => 32,
        _ => digits.parse().ok()?,
    };
    Some(if negative { value.wrapping_neg() } else { value })
}
