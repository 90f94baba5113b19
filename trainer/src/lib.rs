//! Seedcorn: low-rank fine-tuning that can be rerun and verified, bit for bit.

pub mod checkpoint;
pub mod error;
pub mod export;
pub mod model;
pub mod recipe;
pub mod schedule;
