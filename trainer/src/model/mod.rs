//! Models: one decoder of parts, driven by an architecture spec.

mod block;
mod cache;
mod check;
pub mod config;
mod config_error;
#[cfg(test)]
mod config_tests;
mod decoder;
mod factors;
pub mod family;
mod fields;
mod gradients;
mod input;
mod load;
mod pass;
pub mod slice;
pub mod spec;
mod values;
mod vocabulary;

pub use cache::KeyValueCache;
pub use check::check;
pub use config_error::ConfigError;
pub use decoder::Decoder;
pub use gradients::{Gradients, Tree};
pub use input::{Adapted, Input};
pub(crate) use load::NF4_BLOCK;
pub use load::{LoadError, Precision, load, load_slice};
pub use pass::Pass;
pub use slice::Slice;
pub use spec::ModelSpec;
