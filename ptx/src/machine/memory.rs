//! Memory: buffers that know their bounds, which bytes were written, and by whom.

use crate::fault::Problem;

/// First address of a block's shared memory. Every space has its own window, so that a generic address is the same
/// number as one in its space, as `cvta` may assume.
pub(crate) const SHARED: u64 = 0x0100_0000;
/// First address of a thread's local memory.
pub(crate) const LOCAL: u64 = 0x0200_0000;
/// First address of a module's constants.
pub(crate) const CONSTANT: u64 = 0x0300_0000;
/// First address of the launch's arguments.
pub(crate) const PARAMETER: u64 = 0x0400_0000;
/// First address of global memory.
const GLOBAL: u64 = 0x1_0000_0000;
/// Bytes between two buffers, so that an index past one does not hit the next.
const GAP: u64 = 1 << 20;

/// A buffer in global memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub(crate) index: usize,
    pub(crate) address: u64,
}

/// Global memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    buffers: Vec<(u64, Cells)>,
}

impl Memory {
    /// Makes a memory without buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a buffer with these bytes.
    pub fn upload(&mut self, bytes: &[u8]) -> Buffer {
        self.push(Cells { bytes: bytes.to_vec(), set: vec![true; bytes.len()], ..Cells::default() })
    }

    /// Adds a buffer whose bytes are not written yet: reading them is a fault.
    pub fn reserve(&mut self, len: usize) -> Buffer {
        self.push(Cells::unset(len))
    }

    /// Returns the bytes of a buffer.
    ///
    /// # Errors
    /// [`Problem::Unset`] for the first byte that was never written.
    pub fn read(&self, buffer: Buffer) -> Result<&[u8], Problem> {
        let cells = &self.buffers[buffer.index].1;
        match cells.set.iter().position(|set| !set) {
            Some(at) => Err(Problem::Unset { space: "global", address: buffer.address + at as u64 }),
            None => Ok(&cells.bytes),
        }
    }

    fn push(&mut self, cells: Cells) -> Buffer {
        let address = self.buffers.last().map_or(GLOBAL, |(address, cells)| {
            (address + cells.bytes.len() as u64 + GAP).next_multiple_of(256)
        });
        self.buffers.push((address, cells));
        Buffer { index: self.buffers.len() - 1, address }
    }

    /// The buffer that holds an address, and the place in it.
    pub(crate) fn find(&mut self, address: u64) -> Option<(&mut Cells, u64)> {
        let index = self.buffers.partition_point(|(start, _)| *start <= address).checked_sub(1)?;
        let (start, cells) = &mut self.buffers[index];
        Some((cells, *start))
    }

    /// Forgets who wrote what: another launch comes after all of the last.
    pub(crate) fn settle(&mut self) {
        for (_, cells) in &mut self.buffers {
            cells.writers.clear();
            cells.readers.clear();
        }
    }
}

/// Who accesses memory: a stretch of time in which nothing orders its members, and one of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Actor {
    /// Barriers so far for warps of a block; 0 for the blocks of a launch.
    pub(crate) epoch: u64,
    /// Number of the warp or block.
    pub(crate) number: u64,
    /// What it is called.
    pub(crate) kind: &'static str,
}

/// Bits of a member's number in a mark; all of them set means more than one member.
const NUMBER_BITS: u32 = 32;
const SEVERAL: u64 = (1 << NUMBER_BITS) - 1;

impl Actor {
    fn mark(self) -> u64 {
        (self.epoch + 1) << NUMBER_BITS | self.number
    }

    /// Whether a mark was left at the same time by someone else.
    fn races(self, mark: u64) -> bool {
        mark >> NUMBER_BITS == self.epoch + 1 && mark != self.mark()
    }

    fn describe(self, mark: u64, act: &str) -> String {
        match mark & SEVERAL {
            SEVERAL => format!("several {}s {act}", self.kind),
            number => format!("{} {number} {act}s", self.kind),
        }
    }
}

/// Bytes with what is known of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cells {
    bytes: Vec<u8>,
    set: Vec<bool>,
    /// The last write and read of each byte; empty until there is one.
    writers: Vec<u64>,
    readers: Vec<u64>,
}

/// The place of an access, for what is said about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) space: &'static str,
    /// Address of the first byte of these cells.
    pub(crate) start: u64,
    pub(crate) address: u64,
}

impl Cells {
    pub(crate) fn unset(len: usize) -> Self {
        Self { bytes: vec![0; len], set: vec![false; len], ..Self::default() }
    }

    pub(crate) fn filled(bytes: Vec<u8>) -> Self {
        Self { set: vec![true; bytes.len()], bytes, ..Self::default() }
    }

    fn check(&self, place: Place, bytes: usize) -> Result<usize, Problem> {
        let Place { space, start, address } = place;
        if !address.is_multiple_of(bytes as u64) {
            return Err(Problem::Misaligned { address, bytes });
        }
        let at = address.wrapping_sub(start) as usize;
        match at.checked_add(bytes) {
            Some(end) if end <= self.bytes.len() => Ok(at),
            _ => Err(Problem::OutOfBounds { space, address, bytes }),
        }
    }

    /// Reads up to 8 bytes.
    pub(crate) fn load(&mut self, place: Place, bytes: usize, actor: Option<Actor>) -> Result<u64, Problem> {
        let at = self.check(place, bytes)?;
        let address = |i: usize| place.start + i as u64;
        if let Some(i) = (at..at + bytes).find(|i| !self.set[*i]) {
            return Err(Problem::Unset { space: place.space, address: address(i) });
        }
        if let Some(actor) = actor {
            self.readers.resize(self.bytes.len(), 0);
            for i in at..at + bytes {
                let writer = self.writers.get(i).copied().unwrap_or(0);
                if actor.races(writer) {
                    let (first, second) =
                        (actor.describe(writer, "write"), actor.describe(actor.mark(), "read"));
                    return Err(Problem::Race { space: place.space, address: address(i), first, second });
                }
                let reader = &mut self.readers[i];
                *reader = actor.mark() | if actor.races(*reader) { SEVERAL } else { 0 };
            }
        }
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(&self.bytes[at..at + bytes]);
        Ok(u64::from_le_bytes(value))
    }

    /// Writes up to 8 bytes.
    pub(crate) fn store(
        &mut self,
        place: Place,
        bytes: usize,
        value: u64,
        actor: Option<Actor>,
    ) -> Result<(), Problem> {
        let at = self.check(place, bytes)?;
        if let Some(actor) = actor {
            self.writers.resize(self.bytes.len(), 0);
            for i in at..at + bytes {
                let marks = [(self.writers[i], "write"), (self.readers.get(i).copied().unwrap_or(0), "read")];
                if let Some((mark, act)) = marks.into_iter().find(|(mark, _)| actor.races(*mark)) {
                    let (first, second) = (actor.describe(mark, act), actor.describe(actor.mark(), "write"));
                    let address = place.start + i as u64;
                    return Err(Problem::Race { space: place.space, address, first, second });
                }
                self.writers[i] = actor.mark();
            }
        }
        self.bytes[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        self.set[at..at + bytes].fill(true);
        Ok(())
    }

    /// Marks bytes as on their way: reading them before they arrive is a fault.
    pub(crate) fn forget(&mut self, place: Place, bytes: usize) -> Result<(), Problem> {
        let at = self.check(place, bytes)?;
        self.set[at..at + bytes].fill(false);
        Ok(())
    }
}
