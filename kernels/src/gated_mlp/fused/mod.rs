//! The half as one kernel on bf16 tiles: a task takes [`ROWS`] tokens at a time through all of it.

mod backward;
mod forward;
mod packed;
mod rows;

pub(super) use backward::backward;
pub(super) use forward::forward;

/// Tokens that go through the half together: what they need stays in a second-level cache of 2 MB.
const ROWS: usize = 128;

/// Inner columns that are computed together.
const COLUMNS: usize = 64;
