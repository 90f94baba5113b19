//! Runs kernels: blocks one after the other, the warps of a block from barrier to barrier.

pub(crate) mod memory;
pub(crate) mod step;
#[cfg(test)]
mod tests;
pub(crate) mod warp;

use std::collections::BTreeMap;

use crate::fault::{Fault, Problem};
use crate::parse::{Kernel, Module};
use memory::{Buffer, Cells, Memory, PARAMETER, Place};
use step::BlockMemory;
use warp::{LANES, Stop, Warp};

/// How many blocks and threads a launch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block along x, y and z.
    pub threads: [u32; 3],
    /// Shared memory besides what the kernel declares.
    pub dynamic_shared_bytes: usize,
}

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// The address of a buffer.
    Buffer(Buffer),
    /// A value, as its bytes.
    Value(Vec<u8>),
}

/// What a launch executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Instructions by opcode without modifiers, one for each warp that executed one.
    pub executed: BTreeMap<String, u64>,
    /// Executions of each instruction of the kernel by a warp.
    pub by_instruction: Vec<u64>,
}

impl Module {
    /// Runs a kernel over a grid.
    ///
    /// # Errors
    /// The first [`Fault`]. What blocks wrote before stays in memory.
    pub fn launch(
        &self,
        kernel: &str,
        grid: Grid,
        arguments: &[Argument],
        memory: &mut Memory,
    ) -> Result<Report, Fault> {
        let nowhere =
            |problem| Fault { line: 0, instruction: String::new(), block: [0; 3], thread: 0, problem };
        let found = self.kernels.iter().find(|one| one.name == kernel);
        let missing = || {
            let names: Vec<&str> = self.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
            nowhere(Problem::Arguments { expected: format!("{names:?}"), got: kernel.to_owned() })
        };
        let kernel = found.ok_or_else(missing)?;
        let mut parameters = parameters(kernel, arguments).map_err(nowhere)?;
        let mut constants = Cells::filled(self.constants.clone());
        memory.settle();
        let mut counts = vec![0; kernel.instructions.len()];
        let [x, y, z] = grid.blocks;
        let blocks = (0..z).flat_map(|z| (0..y).flat_map(move |y| (0..x).map(move |x| [x, y, z])));
        for (number, block) in blocks.enumerate() {
            let mut memory = BlockMemory {
                global: memory,
                shared: Cells::unset(kernel.shared_bytes + grid.dynamic_shared_bytes),
                constants: &mut constants,
                parameters: &mut parameters,
                epoch: 0,
                block: number as u64,
                position: [block, grid.blocks, grid.threads],
                dynamic_shared_bytes: grid.dynamic_shared_bytes,
            };
            run_block(kernel, grid, &mut memory, &mut counts, self.limit).map_err(
                |(at, thread, problem)| {
                    let instruction = &kernel.instructions[at];
                    Fault {
                        line: instruction.line,
                        instruction: instruction.text.clone(),
                        block,
                        thread,
                        problem,
                    }
                },
            )?;
        }
        let mut executed = BTreeMap::new();
        for (instruction, count) in kernel.instructions.iter().zip(&counts) {
            *executed.entry(instruction.kind().to_owned()).or_default() += count;
        }
        Ok(Report { executed, by_instruction: counts })
    }
}

fn parameters(kernel: &Kernel, arguments: &[Argument]) -> Result<Cells, Problem> {
    let values: Vec<Vec<u8>> = arguments
        .iter()
        .map(|argument| match argument {
            Argument::Buffer(buffer) => buffer.address.to_le_bytes().to_vec(),
            Argument::Value(bytes) => bytes.clone(),
        })
        .collect();
    let expected: Vec<usize> = kernel.parameters.iter().map(|(_, bytes)| *bytes).collect();
    let got: Vec<usize> = values.iter().map(Vec::len).collect();
    if expected != got {
        let list = |bytes: &[usize]| format!("parameters of {bytes:?} bytes");
        return Err(Problem::Arguments { expected: list(&expected), got: list(&got) });
    }
    let end = kernel.parameters.last().map_or(0, |(at, bytes)| at + bytes);
    let mut cells = Cells::filled(vec![0; end]);
    for ((at, _), value) in kernel.parameters.iter().zip(values) {
        for (i, byte) in value.iter().enumerate() {
            let place = Place { space: "parameter", start: PARAMETER, address: PARAMETER + (at + i) as u64 };
            cells.store(place, 1, (*byte).into(), None)?;
        }
    }
    Ok(cells)
}

/// Runs one block; a failure is the place of the instruction, the thread and the problem.
fn run_block(
    kernel: &Kernel,
    grid: Grid,
    memory: &mut BlockMemory,
    counts: &mut [u64],
    limit: u64,
) -> Result<(), (usize, usize, Problem)> {
    let threads = grid.threads.iter().product::<u32>() as usize;
    let mut warps: Vec<Warp> =
        (0..threads.div_ceil(LANES)).map(|number| Warp::new(kernel, number, threads)).collect();
    loop {
        let mut stops = Vec::with_capacity(warps.len());
        for warp in &mut warps {
            let stop = warp.run(kernel, memory, counts, limit);
            stops.push(stop.map_err(|(at, (lane, problem))| (at, warp.number * LANES + lane, problem))?);
        }
        let first = stops.iter().find_map(|stop| match stop {
            Stop::Barrier { at, .. } => Some(*at),
            Stop::Ended => None,
        });
        let Some(at) = first else { return Ok(()) };
        let waiting = stops.iter().map(|stop| match stop {
            Stop::Barrier { at: place, lanes } if *place == at => *lanes,
            _ => 0,
        });
        let waiting = waiting.sum();
        if waiting != threads {
            return Err((at, 0, Problem::Barrier { waiting, threads }));
        }
        memory.epoch += 1;
        warps.iter_mut().for_each(Warp::release);
    }
}
