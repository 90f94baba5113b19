//! Several ranks train one adapter, and get the bits that one rank would.
//!
//! ```text
//! launch      what a launcher's environment says of this process
//! binding     whether `mpirun` has tied this process to some processors
//! start       a launcher of our own, for the ranks of one machine
//! world       the ranks of a run, and how this process plays its own
//! collective  what ranks do together; one file or folder an engine: single, threads, mpi, nccl
//! gather      parts that come while a rank computes
//! rendezvous  how ranks without MPI find each other
//! ranks       what the training loop asks for: my share, our sum, are we the same
//! tensor      what the ranks with slices of one model ask of each other
//! reduce      one binary tree over micro-batches, whoever computed them
//! traffic     bytes between ranks that share the data, without any being sent
//! model_traffic  bytes between ranks that hold one model together
//! ```

pub mod binding;
mod collective;
mod error;
mod gather;
#[cfg(any(feature = "mpi", feature = "nccl"))]
mod header;
pub mod launch;
mod mesh;
mod model_traffic;
#[cfg(feature = "mpi")]
pub mod mpi;
#[cfg(feature = "mpi")]
mod mpi_gather;
#[cfg(feature = "nccl")]
pub mod nccl;
mod ranks;
mod reduce;
pub mod rendezvous;
mod single;
pub mod start;
mod sum;
mod tensor;
mod threads;
#[cfg(test)]
mod threads_tests;
mod traffic;
mod world;

pub use collective::{Call, Collective, Processes};
pub use error::ParallelError;
pub use gather::{Bytes, Gathering, Pending};
pub use mesh::{Mesh, part};
pub(crate) use model_traffic::STOP;
pub use model_traffic::{BatchSize, ModelTraffic};
pub(crate) use ranks::{EMBEDDING, WEIGHTS, expect_bytes};
pub use ranks::{Exchanged, Ranks};
pub use single::Single;
pub use sum::{Sum, SumOverRanks};
pub use tensor::TensorRanks;
pub use threads::Failure;
pub use traffic::{Sent, Traffic};
pub use world::World;
