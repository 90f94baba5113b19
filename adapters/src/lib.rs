//! Frozen projections, low-rank adapters and the PEFT format.

mod adapter;
pub mod error;
pub mod folder;
pub mod init;
pub mod lora;
pub mod peft;
mod projection;
pub mod target;

pub use adapter::{Adapter, DropoutPlan, LoraModule, read_back};
pub use error::AdapterError;
pub use projection::Projection;
