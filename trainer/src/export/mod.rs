//! Export: merged weights as a Hugging Face model folder, one tensor in memory at a time.

pub mod folder;
pub mod merge;
pub mod shards;
mod side_files;
#[cfg(test)]
mod tests;

pub use folder::{ExportError, HubFolder, write_hub_folder};
pub use shards::ExportDtype;
pub use side_files::{SideFile, side_files};
