//! Ranks as processes that `mpirun` has started, on one machine or many.
//!
//! Every message has a small one ahead that says which call it belongs to and how long it is. Ranks wait for each other
//! there, with pauses that leave the processor to ranks that still compute. A rank that is waited for in vain ends the job
//! from here: buffers that MPI still writes to cannot be given back.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::{self, Universe};
use mpi::request::{self, LocalScope, Request, Scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Source};

use super::header::{HEADER, header, length};
use super::launch::Launch;
use super::mpi_gather::UnderWay;
use super::{Call, Collective, ParallelError, Pending, Processes};
use crate::error::{Exit, report_from};

/// Bytes of one MPI message at most; its count is a 32-bit number.
pub(super) const PIECE: usize = 1 << 30;
/// Values that are added at one time at most, for the same reason.
const ADDED: usize = PIECE / 4;
/// Polls without a pause, while all ranks are known to be there.
const BUSY: Duration = Duration::from_secs(1);
/// The longest pause between two polls.
const LONGEST_PAUSE: Duration = Duration::from_micros(500);

/// This process in the world of MPI.
pub(super) struct Mpi {
    world: SimpleCommunicator,
    rank: usize,
    size: usize,
    /// Ends MPI when it is dropped.
    _universe: Universe,
}

type Waiting<'a, 'b> = Vec<(usize, Request<'a, [u8], &'b LocalScope<'a>>)>;

impl Mpi {
    /// Joins the ranks that `mpirun` has started.
    ///
    /// # Errors
    /// [`ParallelError::OtherMpi`] when the launcher's variables are not those of `mpirun`.
    pub(super) fn join(launch: &Launch) -> Result<Self, ParallelError> {
        // A panic on any thread ends the job; all else is called from one thread.
        let (universe, _) = mpi::initialize_with_threading(Threading::Multiple).expect("MPI starts once");
        let world = universe.world();
        let (mpi_rank, mpi_ranks) = (world.rank() as usize, world.size() as usize);
        let Launch { rank, ranks, by, .. } = *launch;
        if (mpi_rank, mpi_ranks) != (rank, ranks) {
            let error = ParallelError::OtherMpi { rank, ranks, by, mpi_rank, mpi_ranks };
            if mpi_ranks > 1 {
                // Leaving MPI would wait for the others, who may have found nothing wrong.
                let exit = error.exit();
                report_from(Some(mpi_rank), &error.into());
                world.abort(exit.code().into());
            }
            return Err(error);
        }
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            let error = ParallelError::Panicked { rank };
            report_from(Some(rank), &error.into());
            SimpleCommunicator::world().abort(Exit::Lost.code().into());
        }));
        Ok(Self { world, rank, size: ranks, _universe: universe })
    }

    /// Sends and receives buffers whose lengths both sides know, one a member; nothing travels for an empty one.
    fn transfer<'a>(
        &self,
        call: Call,
        members: &[usize],
        deadline: Instant,
        busy: Duration,
        incoming: &'a mut [Vec<u8>],
        outgoing: &[&'a [u8]],
    ) {
        let peer = |rank: usize| self.world.process_at_rank(rank as i32);
        request::scope(|scope| {
            let mut waiting: Waiting<'a, '_> = Vec::new();
            let others = |rank: usize| rank != self.rank;
            for (&rank, buffer) in members.iter().zip(incoming).filter(|(rank, _)| others(**rank)) {
                let receive = |piece| (rank, peer(rank).immediate_receive_into(scope, piece));
                waiting.extend(buffer.chunks_mut(PIECE).map(receive));
            }
            for (&rank, content) in members.iter().zip(outgoing).filter(|(rank, _)| others(**rank)) {
                let send = |piece| (rank, peer(rank).immediate_send(scope, piece));
                waiting.extend(content.chunks(PIECE).map(send));
            }
            self.finish(call, deadline, busy, waiting);
        });
    }

    /// Polls until all requests are done. Ends the job when that takes too long.
    pub(super) fn finish<'a, S: Scope<'a>>(
        &self,
        call: Call,
        deadline: Instant,
        busy: Duration,
        mut waiting: Vec<(usize, Request<'a, [u8], S>)>,
    ) {
        let started = Instant::now();
        let mut pause = Duration::from_micros(10);
        loop {
            let still = waiting.into_iter().filter_map(|(rank, request)| Some((rank, request.test().err()?)));
            waiting = still.collect();
            let Some((missing, _)) = waiting.first() else { return };
            let now = Instant::now();
            if now >= deadline {
                self.lost(call, *missing);
            }
            if now - started < busy {
                thread::yield_now();
            } else {
                thread::sleep(pause);
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }

    fn lost(&self, call: Call, rank: usize) -> ! {
        report_from(Some(self.rank), &call.late(rank).into());
        self.end_all(Exit::Lost)
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange_among(
        &self,
        call: Call,
        members: &[usize],
        outgoing: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, ParallelError> {
        let deadline = call.deadline();
        let headers: Vec<[u8; HEADER]> = outgoing.iter().map(|content| header(call, content.len())).collect();
        let headers: Vec<&[u8]> = headers.iter().map(<[u8; HEADER]>::as_slice).collect();
        let mut expected = vec![vec![0; HEADER]; members.len()];
        self.transfer(call, members, deadline, Duration::ZERO, &mut expected, &headers);
        let mut incoming = Vec::with_capacity(members.len());
        for ((&rank, got), own) in members.iter().zip(&expected).zip(outgoing) {
            incoming.push(if rank == self.rank { own.to_vec() } else { vec![0; length(call, rank, got)?] });
        }
        self.transfer(call, members, deadline, BUSY, &mut incoming, outgoing);
        Ok(incoming)
    }

    fn start_gather<'a>(
        &'a self,
        _: Call,
        members: &[usize],
        own: Arc<[u8]>,
        lengths: &[usize],
    ) -> Result<Box<dyn Pending + 'a>, ParallelError> {
        Ok(Box::new(UnderWay::new(self, &self.world, (self.rank, members), own, lengths)))
    }

    /// As MPI adds, in a tree or a ring as it sees fit, where all ranks do.
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
        let own = values.to_vec();
        for (own, sum) in own.chunks(ADDED).zip(values.chunks_mut(ADDED)) {
            request::scope(|scope| {
                let mut adding =
                    self.world.immediate_all_reduce_into(scope, own, sum, SystemOperation::sum());
                while let Err(still) = adding.test() {
                    adding = still;
                    if Instant::now() >= deadline {
                        // MPI does not say which rank it waits for.
                        self.lost(call, (self.rank + 1) % self.size);
                    }
                    thread::yield_now();
                }
            });
        }
        Ok(())
    }
}

impl Processes for Mpi {
    fn end_all(&self, exit: Exit) -> ! {
        self.world.abort(exit.code().into())
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "rank {} of {} in MPI", self.rank, self.size)
    }
}

/// Returns the first line of what the library says of itself.
pub fn version() -> Option<String> {
    let text = environment::library_version().ok()?;
    Some(text.lines().next()?.split(',').next()?.trim().to_owned())
}
