//! Saved states: whole or absent at every moment, checked before they are trusted.
//!
//! A checkpoint is a folder `checkpoints/step-000123` with files and a `manifest.json` of their sizes and
//! hashes. It is written to `.tmp-step-000123`, every file and the folder fsynced, and renamed last, so that a
//! process killed at any moment leaves the checkpoints before it as they were.

pub mod atomic;
mod error;
mod manifest;
mod output;
mod state;
mod store;
#[cfg(test)]
mod tests;

pub use error::CheckpointError;
pub use manifest::{Entry, Manifest};
pub use output::Output;
pub use state::State;
pub use store::{Broken, Fill, Resumed, Saved, Store, bytes};
