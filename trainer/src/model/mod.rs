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
mod loss;
mod shards;
pub mod slice;
pub mod spec;
mod values;
mod vocabulary;

pub use cache::KeyValueCache;
pub use check::check;
pub use config_error::ConfigError;
pub(crate) use decoder::ACTIVATIONS;
pub use decoder::{Decoder, Model};
pub(crate) use factors::FACTORS;
pub use gradients::{Gradients, Summed, Tree};
pub use input::{Adapted, Input};
pub(crate) use load::NF4_BLOCK;
pub use load::{LoadError, Precision, load, load_part};
pub use loss::Loss;
pub(crate) use shards::rows_of_range;
pub use shards::{Cut, Pass};
pub use slice::Slice;
pub use spec::ModelSpec;
pub(crate) use vocabulary::{ROW_SUM_BYTES, SOFTMAX};
