//! Numeric operations of Seedcorn: one folder per op, each with its reference, CPU code and gradient.
pub mod nf4;
