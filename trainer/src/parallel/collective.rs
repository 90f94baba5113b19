//! What ranks do together. Engines say how messages travel; everything else is made of that.

use std::sync::Arc;
use std::time::Duration;

use super::ParallelError;
use super::gather::{Gathered, Pending};
use crate::error::Exit;

/// One call of a collective: what an error names, and how long the others may let wait.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// What is done, like `gradients`.
    pub op: &'static str,
    /// The optimizer step it belongs to; 0 before the first.
    pub step: u64,
    /// How long to wait for the slowest rank.
    pub patience: Duration,
}

/// The ranks of a run, seen from one of them. All ranks make the same calls in the same order.
pub trait Collective: std::fmt::Debug {
    /// Returns which rank this is.
    fn rank(&self) -> usize;

    /// Returns how many ranks there are.
    fn size(&self) -> usize;

    /// Sends `outgoing[i]` to each rank `members[i]` and returns what every one of them sent here, in the same order, this
    /// rank included. All members make the call with the same list, which rises; other ranks know nothing of it.
    ///
    /// # Errors
    /// [`ParallelError::Lost`] with the rank that ended or did not come in time.
    fn exchange_among(
        &self,
        call: Call,
        members: &[usize],
        outgoing: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, ParallelError>;

    /// Sends `outgoing[r]` to each rank `r` and returns what every rank sent here, in the order of ranks, this one
    /// included.
    ///
    /// # Errors
    /// As [`Collective::exchange_among`].
    fn exchange(&self, call: Call, outgoing: &[&[u8]]) -> Result<Vec<Vec<u8>>, ParallelError> {
        let everyone: Vec<usize> = (0..self.size()).collect();
        self.exchange_among(call, &everyone, outgoing)
    }

    /// Sends the same to every member and returns what each has sent, in their order.
    ///
    /// # Errors
    /// As [`Collective::exchange_among`].
    fn all_gather_among(
        &self,
        call: Call,
        members: &[usize],
        own: &[u8],
    ) -> Result<Vec<Vec<u8>>, ParallelError> {
        self.exchange_among(call, members, &vec![own; members.len()])
    }

    /// Sends the same to every rank and returns what each has sent, in the order of ranks.
    ///
    /// # Errors
    /// As [`Collective::exchange_among`].
    fn all_gather(&self, call: Call, own: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        let everyone: Vec<usize> = (0..self.size()).collect();
        self.all_gather_among(call, &everyone, own)
    }

    /// Begins to send the same to every one of `members` and to take what each sends, of which the lengths are known.
    /// Members begin the same gatherings in the same order, and wait for them in that order; other calls may come between.
    /// An engine that moves nothing while its rank computes does it all at once.
    ///
    /// # Errors
    /// As [`Collective::exchange`].
    fn start_gather<'a>(
        &'a self,
        call: Call,
        members: &[usize],
        own: Arc<[u8]>,
        lengths: &[usize],
    ) -> Result<Box<dyn Pending + 'a>, ParallelError> {
        debug_assert_eq!(members.len(), lengths.len());
        Ok(Box::new(Gathered(self.all_gather_among(call, members, &own)?)))
    }
}

/// Ranks that are processes: each sees the others only through messages.
pub trait Processes: Collective {
    /// Ends every rank, whatever it is doing, this one included.
    fn end_all(&self, exit: Exit) -> !;
}
