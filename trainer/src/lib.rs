//! Seedcorn: low-rank fine-tuning that can be rerun and verified, bit for bit.

mod bad_batch;
pub mod base;
pub mod build;
pub mod checkpoint;
pub mod cli;
pub mod error;
pub mod evaluate;
pub mod evidence;
pub mod export;
pub mod generate;
pub mod log;
pub mod memory;
pub mod merge;
pub mod model;
pub mod optimizer;
pub mod plan;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod run;
pub mod sample;
pub mod schedule;
pub mod snapshot;
pub mod train;
pub mod weights;
