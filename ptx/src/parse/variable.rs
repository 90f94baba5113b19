//! Variables: `.shared .align 16 .b8 name[2048]`, `.const .f32 table[2] = {0f3F800000, 0f40000000}`.

use super::operand::immediate;
use super::scan::commas;
use crate::fault::ParseError;
use crate::types::Type;

/// A declared variable.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) align: usize,
    pub(super) bytes: usize,
    /// Whether its length is the launch's: `name[]`.
    pub(super) open: bool,
    /// What it starts with, if the text says so.
    pub(super) values: Option<Vec<u8>>,
}

/// Reads a declaration without its `;`.
pub(super) fn parse(text: &str, line: usize) -> Result<Variable, ParseError> {
    let broken = || ParseError::Text { line, expected: "a variable", text: text.to_owned() };
    let (head, values) = match text.split_once('=') {
        Some((head, values)) => (head.trim(), Some(values.trim())),
        None => (text.trim(), None),
    };
    let (head, lengths) = match head.split_once('[') {
        Some((head, lengths)) => (head.trim(), Some(lengths)),
        None => (head, None),
    };
    let words: Vec<&str> = head.split_whitespace().collect();
    let (name, words) = words.split_last().ok_or_else(broken)?;
    let kind = words.iter().rev().find_map(|word| Type::parse(word.strip_prefix('.')?)).ok_or_else(broken)?;
    let align =
        words.iter().position(|word| *word == ".align").and_then(|at| words.get(at + 1)?.parse().ok());
    let mut elements = 1usize;
    let mut open = false;
    for length in lengths.iter().flat_map(|lengths| lengths.split('[')) {
        let length = length.trim().trim_end_matches(']').trim();
        open |= length.is_empty();
        let length: usize = if length.is_empty() { 0 } else { length.parse().map_err(|_| broken())? };
        elements = elements.checked_mul(length).ok_or_else(broken)?;
    }
    let bytes = elements.checked_mul(kind.bytes()).filter(|bytes| *bytes <= 1 << 30).ok_or_else(broken)?;
    let values = values.map(|values| start_values(values, kind, bytes).ok_or_else(broken)).transpose()?;
    let align = align.unwrap_or(kind.bytes());
    Ok(Variable { name: (*name).to_owned(), align: align.clamp(1, 1 << 12), bytes, open, values })
}

/// The bytes of a list of values, the rest zeros.
fn start_values(text: &str, kind: Type, bytes: usize) -> Option<Vec<u8>> {
    let list = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let mut out = Vec::with_capacity(bytes);
    for value in commas(list) {
        out.extend_from_slice(&immediate(value)?.to_le_bytes()[..kind.bytes()]);
    }
    (out.len() <= bytes).then(|| {
        out.resize(bytes, 0);
        out
    })
}
