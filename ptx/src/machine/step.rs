//! What one instruction of one warp sees: its registers and all memory.

use super::memory::{Actor, CONSTANT, Cells, LOCAL, Memory, PARAMETER, Place, SHARED};
use super::warp::{LANES, Warp};
use crate::fault::Problem;
use crate::parse::operand::{Operand, Special};

/// What went wrong, and in which lane.
pub(crate) type Failed = (usize, Problem);

/// Memory of a block besides global memory.
pub(crate) struct BlockMemory<'a> {
    pub(crate) global: &'a mut Memory,
    pub(crate) shared: Cells,
    pub(crate) constants: &'a mut Cells,
    pub(crate) parameters: &'a mut Cells,
    /// Barriers so far.
    pub(crate) epoch: u64,
    /// Number of the block in the launch.
    pub(crate) block: u64,
    /// Index of the block, blocks, threads of a block.
    pub(crate) position: [[u32; 3]; 3],
    pub(crate) dynamic_shared_bytes: usize,
}

/// One instruction of one warp.
pub(crate) struct Step<'a, 'b> {
    pub(crate) warp: &'a mut Warp,
    pub(crate) memory: &'a mut BlockMemory<'b>,
    /// Lanes that execute it.
    pub(crate) active: u32,
}

impl Step<'_, '_> {
    /// The lanes that execute the instruction.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = usize> + use<> {
        let active = self.active;
        (0..LANES).filter(move |lane| active >> lane & 1 == 1)
    }

    /// Fails unless the whole warp executes the instruction.
    pub(crate) fn whole_warp(&self) -> Result<(), Failed> {
        let active = self.active;
        if active == u32::MAX {
            Ok(())
        } else {
            Err((active.trailing_zeros() as usize, Problem::Partial { active }))
        }
    }

    /// Raw bits of an operand.
    pub(crate) fn get(&self, operand: &Operand, lane: usize) -> u64 {
        match operand {
            Operand::Register(register) | Operand::Pair(Some(register), _) => {
                self.warp.registers[*register][lane]
            }
            Operand::Not(register) => self.warp.registers[*register][lane] ^ 1,
            Operand::Immediate(bits) => *bits,
            Operand::Special(special) => self.special(*special, lane),
            Operand::Address(base, offset) => {
                let base = base.map_or(0, |register| self.warp.registers[register][lane]);
                base.wrapping_add_signed(*offset)
            }
            Operand::Vector(_) | Operand::Pair(None, _) | Operand::Sink => 0,
        }
    }

    /// Writes a register, unless the operand says that the value is not wanted.
    pub(crate) fn set(&mut self, operand: &Operand, lane: usize, value: u64) {
        if let Operand::Register(register) | Operand::Pair(Some(register), _) = operand {
            self.warp.registers[*register][lane] = value;
        }
    }

    /// Writes the predicate of a pair.
    pub(crate) fn set_predicate(&mut self, operand: &Operand, lane: usize, value: bool) {
        if let Operand::Pair(_, Some(register)) = operand {
            self.warp.registers[*register][lane] = value.into();
        }
    }

    /// An address operand; those of 32-bit registers are not longer than that.
    pub(crate) fn address(&self, operand: &Operand, lane: usize, space: Space) -> u64 {
        let address = self.get(operand, lane);
        if space == Space::Shared { address & 0xffff_ffff } else { address }
    }

    fn special(&self, special: Special, lane: usize) -> u64 {
        let [block, blocks, threads] = self.memory.position;
        let number = self.warp.number * LANES + lane;
        let [x, y] = [threads[0] as usize, threads[1] as usize];
        let bits = |mask: u64| mask & 0xffff_ffff;
        match special {
            Special::Thread(axis) => [number % x, number / x % y, number / (x * y)][axis] as u64,
            Special::Threads(axis) => threads[axis].into(),
            Special::Block(axis) => block[axis].into(),
            Special::Blocks(axis) => blocks[axis].into(),
            Special::Lane => lane as u64,
            Special::Warp => self.warp.number as u64,
            Special::Warps => threads.iter().product::<u32>().div_ceil(LANES as u32).into(),
            Special::Before(with) => (1 << (lane + usize::from(with))) - 1,
            Special::After(with) => bits(u64::MAX << (lane + usize::from(!with))),
            Special::DynamicShared => self.memory.dynamic_shared_bytes as u64,
        }
    }

    /// Reads up to 8 bytes for a lane.
    pub(crate) fn load(
        &mut self,
        lane: usize,
        space: Space,
        address: u64,
        bytes: usize,
    ) -> Result<u64, Failed> {
        let (cells, place, actor) = self.cells(lane, space, address, bytes)?;
        cells.load(place, bytes, actor).map_err(|problem| (lane, problem))
    }

    /// Writes up to 8 bytes for a lane.
    pub(crate) fn store(
        &mut self,
        lane: usize,
        space: Space,
        address: u64,
        bytes: usize,
        value: u64,
    ) -> Result<(), Failed> {
        let (cells, place, actor) = self.cells(lane, space, address, bytes)?;
        if matches!(place.space, "constant" | "parameter") {
            return Err((lane, Problem::OutOfBounds { space: "writable", address, bytes }));
        }
        cells.store(place, bytes, value, actor).map_err(|problem| (lane, problem))
    }

    /// Marks bytes that a copy will bring.
    pub(crate) fn forget(&mut self, lane: usize, address: u64, bytes: usize) -> Result<(), Failed> {
        let (cells, place, _) = self.cells(lane, Space::Shared, address, bytes)?;
        cells.forget(place, bytes).map_err(|problem| (lane, problem))
    }

    fn cells(
        &mut self,
        lane: usize,
        space: Space,
        address: u64,
        bytes: usize,
    ) -> Result<(&mut Cells, Place, Option<Actor>), Failed> {
        let memory = &mut *self.memory;
        let warps = Actor { epoch: memory.epoch, number: self.warp.number as u64, kind: "warp" };
        let blocks = Actor { epoch: 0, number: memory.block, kind: "block" };
        let (space_name, belongs) = (space.name(), Space::of(address));
        if space != Space::Generic && space != belongs {
            return Err((lane, Problem::OutOfBounds { space: space_name, address, bytes }));
        }
        let place = |space, start| Place { space, start, address };
        Ok(match belongs {
            Space::Shared => (&mut memory.shared, place("shared", SHARED), Some(warps)),
            Space::Local => (&mut self.warp.local[lane], place("local", LOCAL), None),
            Space::Constant => (memory.constants, place("constant", CONSTANT), None),
            Space::Parameter => (memory.parameters, place("parameter", PARAMETER), None),
            Space::Global | Space::Generic => {
                let outside = (lane, Problem::OutOfBounds { space: space_name, address, bytes });
                let (cells, start) = memory.global.find(address).ok_or(outside)?;
                (cells, place("global", start), Some(blocks))
            }
        })
    }
}

/// A state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Constant,
    Parameter,
}

impl Space {
    /// Which space an address lies in.
    fn of(address: u64) -> Self {
        match address {
            SHARED..LOCAL => Self::Shared,
            LOCAL..CONSTANT => Self::Local,
            CONSTANT..PARAMETER => Self::Constant,
            PARAMETER..0x0500_0000 => Self::Parameter,
            _ => Self::Global,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Generic | Self::Global => "global",
            Self::Shared => "shared",
            Self::Local => "local",
            Self::Constant => "constant",
            Self::Parameter => "parameter",
        }
    }
}
