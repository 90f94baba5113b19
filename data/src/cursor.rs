//! Where a stream of micro-batches stands.

use serde::{Deserialize, Serialize};

/// A place in the endless stream; goes into every checkpoint.
///
/// A unit is a sample, or a pack when packing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Optimizer steps given so far.
    pub step: u64,
    /// Micro-batches given so far.
    pub micro_batch: u64,
    /// Epoch the next unit comes from, unless this one is used up.
    pub epoch: u64,
    /// Units of that epoch given so far.
    pub unit: u64,
}
