//! An interpreter for PTX, the assembly language that CUDA kernels are compiled to.
//!
//! It runs a kernel's text on the CPU and refuses what a GPU would silently allow: accesses outside a buffer, reads
//! of memory that nobody wrote, data races between barriers, barriers that not every thread reaches, and writes of
//! two blocks to one place. So it shows whether a kernel computes what it should; it says nothing about its speed.
//!
//! ```
//! use seedcorn_ptx::{Argument, Grid, Memory, Module};
//!
//! let text = "
//! .version 8.0
//! .target sm_80
//! .address_size 64
//! .visible .entry twice(.param .u64 values)
//! {
//!     .reg .b32 %r<3>;
//!     .reg .b64 %rd<4>;
//!     ld.param.u64 %rd1, [values];
//!     mov.u32 %r1, %tid.x;
//!     mul.wide.u32 %rd2, %r1, 4;
//!     add.s64 %rd3, %rd1, %rd2;
//!     ld.global.u32 %r2, [%rd3];
//!     shl.b32 %r2, %r2, 1;
//!     st.global.u32 [%rd3], %r2;
//!     ret;
//! }";
//! let module = Module::parse(text)?;
//! let mut memory = Memory::new();
//! let values = memory.upload(&[1, 0, 0, 0, 2, 0, 0, 0]);
//! let grid = Grid { blocks: [1, 1, 1], threads: [2, 1, 1], dynamic_shared_bytes: 0 };
//! module.launch("twice", grid, &[Argument::Buffer(values)], &mut memory)?;
//! assert_eq!(memory.read(values)?, [2, 0, 0, 0, 4, 0, 0, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Numerics
//! - `add`, `mul`, `fma`, `div.rn`, `sqrt.rn` and conversions round as IEEE 754 says.
//! - Approximations (`ex2`, `lg2`, `rcp`, `sqrt`, `rsqrt`, `sin`, `cos`, `tanh` with `.approx`, `div.full`) are
//!   computed in f64 and rounded once: a GPU may differ by the errors that the PTX manual states (about 2 ulp).
//! - A matrix unit's product (`mma`, `wmma`) adds exact products in f64 to the accumulator and rounds to f32 once; the
//!   order and the truncation inside real units are not documented, and differ by some ulp of the largest addend.
//!
//! # What is modelled
//! Warps of 32 lanes run in step while they agree; where they do not, the lanes that are furthest behind run first.
//! Races are looked for between the warps of a block (shared memory, from one barrier to the next) and between the
//! blocks of a launch (global memory): lanes of one warp are taken to be in order, as CUDA's warp-wide operations make
//! them. Not modelled: atomics, fences between blocks, TMA, `wgmma`, clusters, functions, textures; they are errors.
//!
//! # Source
//! NVIDIA, Parallel Thread Execution ISA, version 9.

mod fault;
mod instructions;
mod machine;
mod parse;
mod types;

pub use fault::{Fault, ParseError, Problem};
pub use machine::memory::{Buffer, Memory};
pub use machine::{Argument, Grid, Report};
pub use parse::{Instruction, Kernel, Module};
