//! Frozen projections, low-rank adapters and the PEFT format.

pub mod error;
pub mod folder;
pub mod init;
pub mod lora;
pub mod peft;
pub mod target;
