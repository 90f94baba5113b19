//! Seedcorn: low-rank fine-tuning that can be rerun and verified, bit for bit.

pub mod checkpoint;
pub mod cli;
pub mod error;
pub mod evidence;
pub mod export;
pub mod log;
pub mod model;
pub mod recipe;
pub mod schedule;
pub mod weights;
