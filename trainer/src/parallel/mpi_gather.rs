//! Gatherings that MPI goes on with while this rank computes.
//!
//! What is short or comes over shared memory is there when it is waited for; of longer messages over a network MPI
//! moves some each time it is called, so a rank polls between two pieces of work.

#![expect(unsafe_code, reason = "MPI holds on to buffers beyond the call that hands them over")]

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use mpi::request::{Request, StaticScope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, Destination, Source};

use super::mpi::{Mpi, PIECE};
use super::{Bytes, Call, ParallelError, Pending};

/// Keeps these messages apart from those of calls that come between.
const TAG: i32 = 1;

/// A gathering with messages under way.
#[derive(Debug)]
pub(super) struct UnderWay<'a> {
    mpi: &'a Mpi,
    waiting: Vec<(usize, Request<'static, [u8], StaticScope>)>,
    /// What comes from each member; nothing from this rank. MPI writes to it while requests wait.
    incoming: Vec<Vec<u8>>,
    /// This rank's place among the members, and what it sends. MPI reads it while requests wait.
    own: (usize, Arc<[u8]>),
}

impl<'a> UnderWay<'a> {
    /// Hands everything to MPI.
    pub(super) fn new(
        mpi: &'a Mpi,
        world: &SimpleCommunicator,
        (rank, members): (usize, &[usize]),
        own: Arc<[u8]>,
        lengths: &[usize],
    ) -> Self {
        let place = members.iter().position(|member| *member == rank).expect("this rank is a member");
        let of = |(index, length): (usize, &usize)| vec![0; if index == place { 0 } else { *length }];
        let mut incoming: Vec<Vec<u8>> = lengths.iter().enumerate().map(of).collect();
        let mut waiting = Vec::new();
        for (&from, buffer) in members.iter().zip(&mut incoming) {
            for piece in buffer.chunks_mut(PIECE) {
                // SAFETY: the memory behind a vector stays where it is when the vector moves, and `drop` gives it back
                // only when no request waits.
                let piece: &'static mut [u8] =
                    unsafe { std::slice::from_raw_parts_mut(piece.as_mut_ptr(), piece.len()) };
                let process = world.process_at_rank(from as i32);
                waiting.push((from, process.immediate_receive_into_with_tag(StaticScope, piece, TAG)));
            }
        }
        for &to in members.iter().filter(|member| **member != rank) {
            for piece in own.chunks(PIECE) {
                // SAFETY: as above; `own` is never written.
                let piece: &'static [u8] = unsafe { std::slice::from_raw_parts(piece.as_ptr(), piece.len()) };
                let process = world.process_at_rank(to as i32);
                waiting.push((to, process.immediate_send_with_tag(StaticScope, piece, TAG)));
            }
        }
        Self { mpi, waiting, incoming, own: (place, own) }
    }
}

impl Pending for UnderWay<'_> {
    fn poll(&mut self) {
        let waiting = mem::take(&mut self.waiting);
        let still = waiting.into_iter().filter_map(|(rank, request)| Some((rank, request.test().err()?)));
        self.waiting = still.collect();
    }

    fn wait(mut self: Box<Self>, call: Call) -> Result<Vec<Bytes>, ParallelError> {
        let deadline = call.deadline();
        // Either all is done when this comes back, or the job has ended.
        self.mpi.finish(call, deadline, Duration::ZERO, mem::take(&mut self.waiting));
        let mut all: Vec<Bytes> = mem::take(&mut self.incoming).into_iter().map(Bytes::Own).collect();
        all[self.own.0] = Bytes::Shared(self.own.1.clone());
        Ok(all)
    }
}

impl Drop for UnderWay<'_> {
    /// Where a rank fails in the middle MPI may still use the buffers: they stay for as long as the process does.
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            mem::forget(mem::take(&mut self.waiting));
            mem::forget(mem::take(&mut self.incoming));
            mem::forget(self.own.1.clone());
        }
    }
}
