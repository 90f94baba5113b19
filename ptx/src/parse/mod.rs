//! Reads PTX text: the module's variables and kernels.

mod body;
pub(crate) mod operand;
mod scan;
#[cfg(test)]
mod tests;
mod variable;

use std::collections::HashMap;

use crate::fault::ParseError;
use crate::instructions::{Effect, Opcode};
use crate::machine::memory::{CONSTANT, PARAMETER};
use scan::commas;

/// A parsed text.
#[derive(Clone, Debug)]
pub struct Module {
    pub(crate) kernels: Vec<Kernel>,
    /// Variables in constant and global memory, one behind the other.
    pub(crate) constants: Vec<u8>,
    addresses: HashMap<String, u64>,
    dynamic: Vec<String>,
    /// Instructions after which a warp is taken not to end.
    pub(crate) limit: u64,
}

/// An entry of a module.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Bytes of static shared memory.
    pub shared_bytes: usize,
    pub(crate) local_bytes: usize,
    pub(crate) registers: usize,
    /// Offset and bytes of each parameter.
    pub(crate) parameters: Vec<(usize, usize)>,
    pub(crate) instructions: Vec<Instruction>,
}

/// One instruction of a kernel.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Line of the text, from 1.
    pub line: usize,
    /// The instruction, without comments.
    pub text: String,
    pub(crate) guard: Option<(usize, bool)>,
    pub(crate) opcode: Opcode,
    pub(crate) effect: Effect,
}

impl Instruction {
    /// Returns the opcode without its modifiers (`mma`, `bar`).
    pub fn kind(&self) -> &str {
        self.opcode.name()
    }
}

impl Kernel {
    /// Returns the instructions in the order of the text.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }
}

impl Module {
    /// Reads a text.
    ///
    /// # Errors
    /// [`ParseError`] for the first thing that is not modelled.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let text = scan::without_comments(text);
        let mut module = Self {
            kernels: Vec::new(),
            constants: Vec::new(),
            addresses: HashMap::new(),
            dynamic: Vec::new(),
            limit: 1 << 24,
        };
        let mut at = 0;
        while let Some(start) = text[at..].find(|c: char| !c.is_whitespace()) {
            at += start;
            let line = text[..at].matches('\n').count() + 1;
            at += module.item(&text[at..], line)?;
        }
        Ok(module)
    }

    /// Sets after how many instructions a warp is taken not to end; 16 million unless set.
    #[must_use]
    pub fn limited(self, instructions: u64) -> Self {
        Self { limit: instructions, ..self }
    }

    /// Returns the kernels in the order of the text.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Returns the module with instruction `at` of a kernel left out: to see that something notices.
    ///
    /// # Panics
    /// When there is no such kernel or instruction.
    #[must_use]
    pub fn without(&self, kernel: &str, at: usize) -> Self {
        let mut module = self.clone();
        let kernel =
            module.kernels.iter_mut().find(|one| one.name == kernel).expect("a kernel of the module");
        kernel.instructions[at].effect = Effect::Nothing;
        module
    }

    /// Reads one item from the start of `text`, and returns its length.
    fn item(&mut self, text: &str, line: usize) -> Result<usize, ParseError> {
        let broken = |expected| {
            let text = text.lines().next().unwrap_or_default().to_owned();
            ParseError::Text { line, expected, text }
        };
        if [".version", ".target", ".address_size"].iter().any(|word| text.starts_with(word)) {
            return Ok(text.find('\n').unwrap_or(text.len()));
        }
        let words = text.split_whitespace().map(|word| word.split('(').next().unwrap_or(word));
        if words.clone().take(3).any(|word| word == ".entry") {
            return self.entry(text, line);
        }
        if words.clone().take(3).any(|word| word == ".func") {
            return Err(broken("a kernel without functions"));
        }
        let end = text.find(';').ok_or_else(|| broken("`;`"))?;
        let variable = variable::parse(&text[..end], line)?;
        if variable.open {
            self.dynamic.push(variable.name);
        } else if text.starts_with(".shared") || words.clone().nth(1) == Some(".shared") {
            return Err(broken("shared memory inside a kernel"));
        } else {
            let start = self.constants.len().next_multiple_of(variable.align);
            self.constants.resize(start, 0);
            self.constants.extend(variable.values.unwrap_or_else(|| vec![0; variable.bytes]));
            self.addresses.insert(variable.name, CONSTANT + start as u64);
        }
        Ok(end + 1)
    }

    fn entry(&mut self, text: &str, line: usize) -> Result<usize, ParseError> {
        let broken = |expected| {
            let text = text.lines().next().unwrap_or_default().to_owned();
            ParseError::Text { line, expected, text }
        };
        let open = text.find('{').ok_or_else(|| broken("a body"))?;
        let head = &text[..open];
        let name = head.split(".entry").nth(1).unwrap_or_default().trim_start();
        let name: String = name.chars().take_while(|c| !c.is_whitespace() && *c != '(').collect();
        let close = matching(text, open).ok_or_else(|| broken("a closed body"))?;
        let mut addresses = self.addresses.clone();
        let mut parameters = Vec::new();
        let inner =
            head.split_once('(').and_then(|(_, list)| list.split_once(')')).map_or("", |(list, _)| list);
        let mut end = 0usize;
        for parameter in commas(inner) {
            // `.ptr .align 1` says what the pointer points to, not how the parameter lies.
            let parameter = parameter.split_once(".ptr").map_or_else(
                || parameter.to_owned(),
                |(kind, rest)| format!("{kind} {}", rest.split_whitespace().last().unwrap_or_default()),
            );
            let variable = variable::parse(&parameter, line)?;
            let start = end.next_multiple_of(variable.align);
            end = start + variable.bytes;
            parameters.push((start, variable.bytes));
            addresses.insert(variable.name, PARAMETER + start as u64);
        }
        let body_line = line + text[..open].matches('\n').count();
        let body = body::Body::parse(&text[open + 1..close], body_line, addresses, &self.dynamic)?;
        self.kernels.push(Kernel {
            name,
            shared_bytes: body.shared_bytes,
            local_bytes: body.local_bytes,
            registers: body.registers,
            parameters,
            instructions: body.instructions,
        });
        Ok(close + 1)
    }
}

/// Place of the brace that closes the one at `open`.
fn matching(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(open + at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}
