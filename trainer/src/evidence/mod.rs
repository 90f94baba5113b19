//! What shows how a result came about: the lock with every input's hash, signatures, and the check of both.

mod describe;
mod lock;
pub mod outputs;
pub mod signing;
pub mod verify;

pub use describe::{describe, files};
pub use lock::{
    DataFiles, Device, EarlyStep, File, Lock, LockError, MeshResult, ModelFiles, Order, Results, Samples,
    Source, Tool,
};

/// Steps whose exact loss, gradient norm and adapter go into the lock.
pub const EARLY_STEPS: u64 = 5;
