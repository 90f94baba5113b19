//! What can be wrong with a kernel's text, and with what it does.

/// A text that is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// An instruction, or a form of it, that is not modelled.
    #[error("line {line}: the instruction `{text}` is not modelled")]
    Instruction {
        /// Line of the text, from 1.
        line: usize,
        /// The instruction.
        text: String,
    },
    /// A directive that is not modelled, or broken text.
    #[error("line {line}: expected {expected}, got `{text}`")]
    Text {
        /// Line of the text, from 1.
        line: usize,
        /// What is read at such a place.
        expected: &'static str,
        /// What is there.
        text: String,
    },
    /// A name that nothing declares.
    #[error("line {line}: `{name}` is not declared")]
    Name {
        /// Line of the text, from 1.
        line: usize,
        /// The name.
        name: String,
    },
}

/// What a kernel did wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, `{instruction}`, block {block:?}, thread {thread}: {problem}")]
pub struct Fault {
    /// Line of the text, from 1; 0 where no instruction is to blame.
    pub line: usize,
    /// The instruction.
    pub instruction: String,
    /// Index of the block in the grid.
    pub block: [u32; 3],
    /// Number of the thread in its block.
    pub thread: usize,
    /// What happened.
    #[source]
    pub problem: Problem,
}

/// The kinds of faults.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An access that is not inside one allocation.
    #[error("{bytes} bytes at {address:#x} are outside of {space} memory")]
    OutOfBounds {
        /// Which memory.
        space: &'static str,
        /// First byte.
        address: u64,
        /// Length of the access.
        bytes: usize,
    },
    /// An address that is not a multiple of the access's length.
    #[error("{bytes} bytes at {address:#x}: not aligned")]
    Misaligned {
        /// First byte.
        address: u64,
        /// Length of the access.
        bytes: usize,
    },
    /// A read of bytes that nobody wrote.
    #[error("{space} memory at {address:#x} is read before it is written")]
    Unset {
        /// Which memory.
        space: &'static str,
        /// First such byte.
        address: u64,
    },
    /// Two warps, or two blocks, use one place without a barrier between, and one of them writes.
    #[error("a race in {space} memory at {address:#x}: {first} and {second}")]
    Race {
        /// Which memory.
        space: &'static str,
        /// First such byte.
        address: u64,
        /// What came first.
        first: String,
        /// What came second.
        second: String,
    },
    /// Lanes of one store write different values to one place.
    #[error("two lanes write different values to {address:#x} in one instruction")]
    Collision {
        /// The place.
        address: u64,
    },
    /// Threads of a block wait at different barriers, or some have ended.
    #[error("a barrier that not all threads of the block reach: {waiting} of {threads} wait at it")]
    Barrier {
        /// Threads that wait at this barrier.
        waiting: usize,
        /// Threads of the block.
        threads: usize,
    },
    /// An instruction of the whole warp that some lanes do not execute.
    #[error("an instruction of the whole warp with lanes {active:#010x} only")]
    Partial {
        /// The lanes that do.
        active: u32,
    },
    /// A kernel that does not end.
    #[error("a warp executed {limit} instructions: does it end?")]
    Endless {
        /// The limit.
        limit: u64,
    },
    /// Arguments that are not those of the kernel, or a kernel that is not there.
    #[error("the kernel takes {expected}, got {got}")]
    Arguments {
        /// What the text says.
        expected: String,
        /// What the caller gave.
        got: String,
    },
}
