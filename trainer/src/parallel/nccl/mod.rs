//! Ranks as processes with a GPU each, which reach each other by NCCL.
//!
//! ```text
//! library   NCCL's calls, looked for at run time
//! device    the GPU: a stream and staging buffers
//! comm      NCCL's communicator: groups of messages, sums
//! ```
//!
//! NCCL moves bytes between GPUs only, so messages pass through a staging buffer each way, piece by piece. Every message
//! has a small one ahead that says which call it belongs to and how long it is; a rank that is waited for in vain is the one
//! whose has not come. Not yet run on a GPU: what is tested is all up to the making of the communicator.

mod comm;
mod device;
mod error;
mod library;

use std::ffi::c_char;
use std::fmt;
use std::time::{Duration, Instant};

use cudarc::nccl::sys::ncclUniqueId;

use self::comm::{Comm, Part};
use self::device::{Gpu, STAGE};
pub use self::error::NcclError;
use self::library::Library;
use super::header::{HEADER, header, length};
use super::launch::Launch;
use super::rendezvous::{self, Meeting, Place, TOKEN};
use super::{Call, Collective, ParallelError, Processes};
use crate::error::{Exit, report_from};

/// How long ranks look for each other: machines and pods start one after the other.
const JOIN: Duration = Duration::from_mins(10);
/// How long NCCL may take to connect them, once all are there.
const CONNECT: Duration = Duration::from_mins(5);

/// Pieces begin at multiples of so many bytes, which GPUs move at one time.
const ALIGNED: usize = 16;

/// This process in a world of NCCL.
pub(super) struct Nccl {
    rank: usize,
    size: usize,
    gpu: Gpu,
    comm: Comm,
}

impl Nccl {
    /// Joins the ranks that a launcher has started.
    ///
    /// # Errors
    /// [`ParallelError::Unreachable`] with what is missing.
    pub(super) fn join(launch: &Launch) -> Result<Self, ParallelError> {
        let joined = Self::connect(launch).map_err(|error| unreachable(launch.rank, "start", 0, error))?;
        let rank = launch.rank;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            report_from(Some(rank), &ParallelError::Panicked { rank }.into());
            end(Exit::Lost);
        }));
        Ok(joined)
    }

    fn connect(launch: &Launch) -> Result<Self, NcclError> {
        let Launch { rank, ranks, local_rank, .. } = *launch;
        let library = Library::open()?;
        let id = meet(&library, rank, ranks)?;
        let gpu = Gpu::open(local_rank)?;
        let comm = Comm::join(library, id, rank, ranks, CONNECT)?;
        Ok(Self { rank, size: ranks, gpu, comm })
    }

    /// Tells every member how much will come, and returns how much each of them will send; nothing from this rank.
    fn lengths(
        &self,
        call: Call,
        members: &[usize],
        outgoing: &[&[u8]],
        deadline: Instant,
    ) -> Result<Vec<usize>, ParallelError> {
        let own: Vec<u8> = outgoing.iter().flat_map(|content| header(call, content.len())).collect();
        let mut parts = Vec::new();
        for (slot, &rank) in members.iter().enumerate().filter(|(_, rank)| **rank != self.rank) {
            let at = slot * HEADER;
            parts.push(Part::Send { to: rank, at, bytes: HEADER });
            parts.push(Part::Receive { from: rank, at, bytes: HEADER });
        }
        let mut got = vec![0; own.len()];
        let exchanged = || {
            self.gpu.clear(got.len())?;
            self.gpu.upload(0, &own)?;
            self.travel(call, &parts, deadline)
        };
        let come = match exchanged() {
            Ok(()) => self.gpu.download(0, &mut got),
            Err(NcclError::Late { .. }) => return Err(self.lost(call, members)),
            Err(error) => Err(error),
        };
        come.map_err(|error| unreachable(self.rank, call.op, call.step, error))?;
        let of =
            |(&rank, got): (&usize, &[u8])| if rank == self.rank { Ok(0) } else { length(call, rank, got) };
        members.iter().zip(got.chunks(HEADER)).map(of).collect()
    }

    /// Moves messages of known lengths. Both sides of each know them, and so how often a piece of it travels.
    fn pieces(
        &self,
        call: Call,
        members: &[usize],
        outgoing: &[&[u8]],
        incoming: &mut [Vec<u8>],
        deadline: Instant,
    ) -> Result<(), NcclError> {
        let piece = STAGE / members.len() / ALIGNED * ALIGNED;
        let others = || members.iter().enumerate().filter(|(_, rank)| **rank != self.rank);
        let of_slot = |(slot, _): (usize, &usize)| outgoing[slot].len().max(incoming[slot].len());
        let longest = others().map(of_slot).max().unwrap_or(0);
        for start in (0..longest).step_by(piece) {
            let range = |length: usize| start.min(length)..(start + piece).min(length);
            let mut parts = Vec::new();
            for (slot, &rank) in others() {
                let (at, out, come) =
                    (slot * piece, range(outgoing[slot].len()), range(incoming[slot].len()));
                if !out.is_empty() {
                    let bytes = out.len();
                    self.gpu.upload(at, &outgoing[slot][out])?;
                    parts.push(Part::Send { to: rank, at, bytes });
                }
                if !come.is_empty() {
                    parts.push(Part::Receive { from: rank, at, bytes: come.len() });
                }
            }
            self.travel(call, &parts, deadline)?;
            for (slot, _) in others() {
                let come = range(incoming[slot].len());
                if !come.is_empty() {
                    self.gpu.download(slot * piece, &mut incoming[slot][come])?;
                }
            }
        }
        Ok(())
    }

    fn travel(&self, call: Call, parts: &[Part], deadline: Instant) -> Result<(), NcclError> {
        self.comm.group(&self.gpu, parts, deadline, call.patience)?;
        self.finish("the exchange", call, deadline)
    }

    fn finish(&self, what: &'static str, call: Call, deadline: Instant) -> Result<(), NcclError> {
        if self.gpu.wait(deadline, || self.comm.trouble())? {
            return Ok(());
        }
        Err(NcclError::Late { what, seconds: call.patience.as_secs() })
    }

    /// Finds the first member whose header has not come, and gives the world up.
    fn lost(&self, call: Call, members: &[usize]) -> ParallelError {
        let Call { op, step, patience } = call;
        let mut got = vec![0; members.len() * HEADER];
        let seen = self.gpu.peek(&mut got).is_ok();
        self.comm.abort();
        let late = |(rank, got): &(&usize, &[u8])| **rank != self.rank && got.iter().all(|byte| *byte == 0);
        let missing = members.iter().zip(got.chunks(HEADER)).find(late).map(|(rank, _)| *rank);
        match missing {
            Some(rank) if seen => call.late(rank),
            _ => {
                let error = NcclError::Late { what: "the exchange", seconds: patience.as_secs() };
                unreachable(self.rank, op, step, error)
            }
        }
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    /// Through the staging buffers.
    fn exchange_among(
        &self,
        call: Call,
        members: &[usize],
        outgoing: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, ParallelError> {
        let deadline = call.deadline();
        let lengths = self.lengths(call, members, outgoing, deadline)?;
        let mut incoming: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0; length]).collect();
        self.pieces(call, members, outgoing, &mut incoming, deadline)
            .map_err(|error| unreachable(self.rank, call.op, call.step, error))?;
        for ((&rank, message), own) in members.iter().zip(&mut incoming).zip(outgoing) {
            if rank == self.rank {
                *message = own.to_vec();
            }
        }
        Ok(incoming)
    }

    /// As NCCL adds, in a ring or a tree as it sees fit, where all ranks do.
    fn all_reduce_among(
        &self,
        call: Call,
        members: &[usize],
        values: &mut [f32],
    ) -> Result<(), ParallelError> {
        if members.len() != self.size {
            return self.all_reduce_by_slices(call, members, values);
        }
        self.expect_as_many(call, members, values.len())?;
        let deadline = call.deadline();
        let mut add = |piece: &mut [f32]| {
            self.gpu.upload(0, bytemuck::cast_slice(piece))?;
            self.comm.all_reduce(&self.gpu, piece.len(), deadline, call.patience)?;
            self.finish("ncclAllReduce", call, deadline)?;
            self.gpu.download(0, bytemuck::cast_slice_mut(piece))
        };
        let added = values.chunks_mut(STAGE / size_of::<f32>()).try_for_each(&mut add);
        added.map_err(|error| unreachable(self.rank, call.op, call.step, error))
    }
}

impl Processes for Nccl {
    /// The launcher ends the others, or they miss this one at their next call.
    fn end_all(&self, exit: Exit) -> ! {
        self.comm.abort();
        end(exit)
    }
}

impl fmt::Debug for Nccl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "rank {} of {} in NCCL", self.rank, self.size)
    }
}

/// Returns the version of the library that would be used.
///
/// # Errors
/// Why there is none.
pub fn version() -> Result<String, NcclError> {
    Library::open()?.version()
}

/// Returns how many GPUs this process sees.
///
/// # Errors
/// Why there is none.
pub fn gpus() -> Result<usize, NcclError> {
    device::count()
}

/// Finds the other ranks: rank 0 makes the token of the world and hands it out.
fn meet(library: &Library, rank: usize, ranks: usize) -> Result<ncclUniqueId, NcclError> {
    let place = Place::from_env()?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let meeting = Meeting { rank, ranks, place, version, patience: JOIN };
    let token: [u8; TOKEN] = if rank == 0 {
        let listener = rendezvous::listen(&meeting)?;
        let token = library.unique_id()?.internal.map(|byte| byte as u8);
        rendezvous::host(&meeting, &listener, &token)?;
        token
    } else {
        rendezvous::join(&meeting)?
    };
    Ok(ncclUniqueId { internal: token.map(|byte| byte as c_char) })
}

fn unreachable(rank: usize, op: &'static str, step: u64, error: NcclError) -> ParallelError {
    let (hint, exit) = (error.hint(), error.exit());
    ParallelError::Unreachable { rank, op, step, hint, exit, source: Box::new(error) }
}

#[expect(clippy::exit, reason = "what NCCL's threads and the GPU are doing cannot be waited for")]
fn end(exit: Exit) -> ! {
    std::process::exit(exit.code().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run by `scripts/verify/check_nccl.sh`, which fetches the library.
    #[test]
    #[ignore = "needs NCCL's library, and a machine without a GPU"]
    fn without_a_gpu() {
        let library = Library::open().expect("NCCL");
        assert!(library.version().expect("a version").starts_with('2'));
        let id = library.unique_id().expect("a token");
        assert!(id.internal.iter().any(|byte| *byte != 0));
        assert!(matches!(Gpu::open(0), Err(NcclError::NoDriver)));
        let error = Comm::join(library, id, 0, 1, CONNECT).expect_err("no GPU").to_string();
        assert!(error.starts_with("`ncclCommInitRankConfig` failed: "), "{error}");
    }

    #[test]
    fn a_library_that_is_not_there() {
        let error = NcclError::NoLibrary {
            tried: vec!["libnccl.so.2: not found".into(), "libnccl.so: not found".into()],
        };
        let error = unreachable(1, "start", 0, error);
        assert_eq!(error.to_string(), "rank 1 cannot reach the others at `start` of step 0");
        assert_eq!((error.exit(), error.hint().is_some()), (Exit::Usage, true));
    }
}
