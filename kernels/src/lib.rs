//! Numeric operations of Seedcorn: one folder per op, each with its reference, CPU code and gradient.
pub mod ggml;
pub mod int8;
pub mod nf4;
