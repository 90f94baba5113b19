//! What a run will use, item by item, before a weight is read: the memory of each rank, and the bytes between ranks.
//!
//! ```text
//! lines      what `check` says of a prepared run
//! subject    the sizes that the arithmetic reads
//! frozen     bytes of the weights that never change
//! parts      the same weights where every rank keeps a part
//! workspace  what a micro-batch takes for a moment
//! memory     all items of one rank, and the parts of a run that have their own peak
//! fit        whether a machine has so much, and what would help
//! report     a plan as text and as JSON
//! ```
//!
//! How the bytes between ranks come about is beside the collectives: [`crate::parallel::Traffic`].

mod fit;
mod frozen;
mod lines;
mod memory;
mod parts;
mod report;
mod subject;
#[cfg(test)]
mod tests;
mod workspace;

pub use fit::{Fit, NotEnough, before_a_run, helps};
pub use frozen::Frozen;
pub use lines::{lines, warnings};
pub use memory::{Item, Memory, Part};
pub use parts::Parts;
pub use report::Report;
pub use subject::{Subject, is_configuration_only};
