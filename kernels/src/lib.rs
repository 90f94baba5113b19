//! Numeric operations of Seedcorn: one folder per op, each with its reference, CPU code and gradient.

pub mod adamw;
pub mod attention;
mod flex;
pub mod gated_act;
pub mod isa;
pub mod qk_norm;
pub mod rms_norm;
pub mod rope;
#[cfg(test)]
mod testing;
mod vector;
