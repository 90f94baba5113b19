//! Export: merged weights as a Hugging Face model folder, one tensor in memory at a time.

pub mod folder;
pub mod merge;
pub mod shards;
#[cfg(test)]
mod tests;

pub use folder::{ExportError, HubFolder, write_hub_folder};
pub use shards::ExportDtype;
