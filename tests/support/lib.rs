//! What the tests of this package share.

pub mod model;
pub mod scratch;
pub mod wide;
