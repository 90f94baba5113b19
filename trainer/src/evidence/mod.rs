//! What shows how a result came about: the lock with every input's hash, and signatures.

mod describe;
mod lock;
pub mod signing;

pub use describe::{describe, files};
pub use lock::{
    AdapterResult, DataFiles, Device, EarlyStep, File, Lock, LockError, ModelFiles, Order, Results, Samples,
    Source, Tool,
};
