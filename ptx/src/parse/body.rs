//! The body of a kernel: registers, variables, labels and instructions, in scopes.

use std::collections::HashMap;

use super::operand::{self, Names};
use super::scan::{Piece, commas, pieces};
use super::{Effect, Instruction, variable};
use crate::fault::ParseError;
use crate::instructions::{self, Opcode};
use crate::machine::memory::{LOCAL, SHARED};

/// What a body is made of.
#[derive(Default)]
pub(super) struct Body {
    pub(super) instructions: Vec<Instruction>,
    pub(super) registers: usize,
    pub(super) shared_bytes: usize,
    pub(super) local_bytes: usize,
    /// Module-wide names and parameters, then one entry a scope.
    scopes: Vec<Scope>,
    /// Branches and the scope that each stands in.
    branches: Vec<(usize, String, Vec<usize>)>,
    labels: HashMap<(usize, String), usize>,
    open: Vec<usize>,
}

#[derive(Default)]
struct Scope {
    registers: HashMap<String, usize>,
    variables: HashMap<String, u64>,
}

impl Names for Body {
    fn register(&self, name: &str) -> Option<usize> {
        self.open.iter().rev().find_map(|scope| self.scopes[*scope].registers.get(name)).copied()
    }

    fn address(&self, name: &str) -> Option<u64> {
        self.open.iter().rev().find_map(|scope| self.scopes[*scope].variables.get(name)).copied()
    }
}

impl Body {
    /// Reads a body; `outside` are the addresses of module variables and parameters. `dynamic` names the shared
    /// memory whose length the launch gives: it lies behind all other.
    pub(super) fn parse(
        text: &str,
        line: usize,
        outside: HashMap<String, u64>,
        dynamic: &[String],
    ) -> Result<Self, ParseError> {
        let mut body = Self::default();
        body.scopes.push(Scope { variables: outside, ..Scope::default() });
        body.open.push(0);
        let pieces = pieces(text, line);
        // Variables first: the dynamic memory lies behind them, and instructions name it.
        for (line, piece) in &pieces {
            if let Piece::Statement(text) = piece
                && (text.starts_with(".shared") || text.starts_with(".local"))
            {
                body.variable(text, *line)?;
            }
        }
        body.shared_bytes = body.shared_bytes.next_multiple_of(16);
        for name in dynamic {
            body.scopes[0].variables.insert(name.clone(), SHARED + body.shared_bytes as u64);
        }
        for (line, piece) in pieces {
            match piece {
                Piece::Open => {
                    body.open.push(body.scopes.len());
                    body.scopes.push(Scope::default());
                }
                Piece::Close => {
                    body.open.pop();
                }
                Piece::Label(name) => {
                    body.labels.insert((body.scope(), name), body.instructions.len());
                }
                Piece::Statement(text) => body.statement(&text, line)?,
            }
        }
        body.resolve()?;
        Ok(body)
    }

    fn scope(&self) -> usize {
        self.open.last().copied().unwrap_or(0)
    }

    fn variable(&mut self, text: &str, line: usize) -> Result<(), ParseError> {
        let variable = variable::parse(text, line)?;
        let (bytes, window) = if text.starts_with(".shared") {
            (&mut self.shared_bytes, SHARED)
        } else {
            (&mut self.local_bytes, LOCAL)
        };
        let at = bytes.next_multiple_of(variable.align);
        *bytes = at + variable.bytes;
        self.scopes[0].variables.insert(variable.name, window + at as u64);
        Ok(())
    }

    fn statement(&mut self, text: &str, line: usize) -> Result<(), ParseError> {
        let skipped = [".shared", ".local", ".pragma", ".loc", ".file"];
        if let Some(declared) = text.strip_prefix(".reg") {
            return self.declare(declared, line);
        }
        if skipped.iter().any(|directive| text.starts_with(directive)) {
            return Ok(());
        }
        if text.starts_with('.') {
            return Err(ParseError::Text { line, expected: "an instruction", text: text.to_owned() });
        }
        self.instruction(text, line)
    }

    fn declare(&mut self, text: &str, line: usize) -> Result<(), ParseError> {
        let broken = || ParseError::Text { line, expected: "registers", text: text.to_owned() };
        let (_, names) = text.trim().split_once(char::is_whitespace).ok_or_else(broken)?;
        let scope = self.scope();
        for name in commas(names) {
            let (stem, count) = match name.split_once('<') {
                Some((stem, count)) => {
                    let count = count.trim_end_matches('>').parse().map_err(|_| broken())?;
                    (stem, Some(count))
                }
                None => (name, None),
            };
            // A kernel of a million registers is broken text.
            if count.is_some_and(|count: usize| count > 1 << 20) {
                return Err(broken());
            }
            let registers = &mut self.scopes[scope].registers;
            for number in 0..count.unwrap_or(1) {
                let name = if count.is_some() { format!("{stem}{number}") } else { stem.to_owned() };
                registers.insert(name, self.registers);
                self.registers += 1;
            }
        }
        Ok(())
    }

    fn instruction(&mut self, text: &str, line: usize) -> Result<(), ParseError> {
        let unknown = |name: String| ParseError::Name { line, name };
        let (guard, rest) = match text.strip_prefix('@') {
            Some(rest) => {
                let (predicate, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let (negated, name) =
                    predicate.strip_prefix('!').map_or((false, predicate), |name| (true, name));
                let register = self.register(name).ok_or_else(|| unknown(name.to_owned()))?;
                (Some((register, negated)), rest.trim())
            }
            None => (None, text),
        };
        let (opcode, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let opcode = Opcode::new(opcode);
        let effect = if opcode.name() == "bra" {
            self.branches.push((self.instructions.len(), operands.trim().to_owned(), self.open.clone()));
            Effect::Branch(usize::MAX)
        } else {
            let operands: Result<Vec<_>, _> =
                commas(operands).into_iter().map(|operand| operand::parse(operand, self)).collect();
            instructions::decode(&opcode, &operands.map_err(unknown)?)
                .ok_or_else(|| ParseError::Instruction { line, text: text.to_owned() })?
        };
        self.instructions.push(Instruction { line, text: text.to_owned(), guard, opcode, effect });
        Ok(())
    }

    fn resolve(&mut self) -> Result<(), ParseError> {
        for (at, name, open) in &self.branches {
            let target = open.iter().rev().find_map(|scope| self.labels.get(&(*scope, name.clone())));
            let line = self.instructions[*at].line;
            let target = target.ok_or_else(|| ParseError::Name { line, name: name.clone() })?;
            self.instructions[*at].effect = Effect::Branch(*target);
        }
        Ok(())
    }
}
