//! Seedcorn: low-rank fine-tuning that can be rerun and verified, bit for bit.

pub mod weights;
