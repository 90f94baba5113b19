//! Numeric operations of Seedcorn: one folder per op, each with its reference, CPU code and gradient.

mod flex;
pub mod isa;
pub mod rms_norm;
#[cfg(test)]
mod testing;
mod vector;
