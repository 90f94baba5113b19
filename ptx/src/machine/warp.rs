//! A warp: 32 lanes with a place each in the program.

use super::memory::Cells;
use super::step::{BlockMemory, Failed, Step};
use crate::fault::Problem;
use crate::instructions::Effect;
use crate::parse::Kernel;

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// Bytes that asynchronous copies bring: lane, address, length and value of each piece.
pub(crate) type Copies = Vec<(usize, u64, usize, u64)>;

/// State of a warp.
pub(crate) struct Warp {
    pub(crate) number: usize,
    pub(crate) registers: Vec<[u64; LANES]>,
    pub(crate) local: Vec<Cells>,
    /// Copies that were issued but belong to no group yet, and groups from the oldest on.
    pub(crate) issued: Copies,
    pub(crate) groups: Vec<Copies>,
    places: [usize; LANES],
    /// Lanes that run, and those of them that wait at a barrier.
    alive: u32,
    waiting: u32,
    barrier: usize,
    executed: u64,
}

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// All its lanes have ended.
    Ended,
    /// Lanes wait at the barrier with this place in the program.
    Barrier { at: usize, lanes: usize },
}

impl Warp {
    pub(crate) fn new(kernel: &Kernel, number: usize, threads: usize) -> Self {
        let lanes = threads.saturating_sub(number * LANES).min(LANES);
        Self {
            number,
            registers: vec![[0; LANES]; kernel.registers],
            local: (0..LANES).map(|_| Cells::unset(kernel.local_bytes)).collect(),
            issued: Copies::new(),
            groups: Vec::new(),
            places: [0; LANES],
            alive: (u64::MAX >> (64 - lanes)) as u32,
            waiting: 0,
            barrier: 0,
            executed: 0,
        }
    }

    /// Lets the lanes go on that waited.
    pub(crate) fn release(&mut self) {
        self.waiting = 0;
    }

    /// Runs until no lane can go on; `counts` are executions of each instruction by a warp.
    ///
    /// # Errors
    /// The place of the instruction that failed, the lane and the problem.
    pub(crate) fn run(
        &mut self,
        kernel: &Kernel,
        memory: &mut BlockMemory,
        counts: &mut [u64],
        limit: u64,
    ) -> Result<Stop, (usize, Failed)> {
        while self.alive & !self.waiting != 0 {
            let ready = self.alive & !self.waiting;
            let each = |mask: u32| (0..LANES).filter(move |lane| mask >> lane & 1 == 1);
            let at = each(ready).map(|lane| self.places[lane]).min().unwrap_or(0);
            let mut lanes = 0u32;
            for lane in each(ready).filter(|lane| self.places[*lane] == at) {
                lanes |= 1 << lane;
            }
            let Some(instruction) = kernel.instructions.get(at) else {
                self.alive &= !lanes;
                continue;
            };
            self.executed += 1;
            if self.executed > limit {
                return Err((at, (0, Problem::Endless { limit })));
            }
            let mut active = lanes;
            if let Some((register, negated)) = instruction.guard {
                for lane in each(lanes) {
                    if (self.registers[register][lane] == 1) == negated {
                        active &= !(1 << lane);
                    }
                }
            }
            for lane in each(lanes) {
                self.places[lane] = at + 1;
            }
            if active == 0 {
                continue;
            }
            counts[at] += 1;
            match &instruction.effect {
                Effect::Nothing => {}
                Effect::Branch(target) => each(active).for_each(|lane| self.places[lane] = *target),
                Effect::Return => self.alive &= !active,
                Effect::Barrier => {
                    if self.waiting != 0 && self.barrier != at {
                        let problem =
                            Problem::Barrier { waiting: active.count_ones() as usize, threads: LANES };
                        return Err((at, (active.trailing_zeros() as usize, problem)));
                    }
                    self.waiting |= active;
                    self.barrier = at;
                }
                Effect::Plain(action) => {
                    let mut step = Step { warp: self, memory, active };
                    action(&mut step).map_err(|failed| (at, failed))?;
                }
            }
        }
        Ok(match self.waiting & self.alive {
            0 => Stop::Ended,
            waiting => Stop::Barrier { at: self.barrier, lanes: waiting.count_ones() as usize },
        })
    }
}
