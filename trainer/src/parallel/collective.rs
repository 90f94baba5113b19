//! What ranks do together. Engines say how messages travel; everything else is made of that.

use std::sync::Arc;
use std::time::Duration;

use super::gather::{Gathered, Pending};
use super::ranks::expect_bytes;
use super::sum::floats;
use super::{ParallelError, part};
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

    /// Adds up what members have, in an order of the engine's own; every one of them gets the same sum.
    ///
    /// # Errors
    /// As [`Collective::exchange_among`].
    fn all_reduce_among(
        &self,
        call: Call,
        members: &[usize],
        values: &mut [f32],
    ) -> Result<(), ParallelError> {
        self.all_reduce_by_slices(call, members, values)
    }

    /// Checks that members are at the same call with as many values, before an engine adds by itself.
    ///
    /// # Errors
    /// [`ParallelError::OutOfStep`], and as [`Collective::exchange_among`].
    fn expect_as_many(&self, call: Call, members: &[usize], values: usize) -> Result<(), ParallelError> {
        let own = (values as u64).to_ne_bytes();
        let Call { op, step, .. } = call;
        for (&rank, other) in members.iter().zip(self.all_gather_among(call, members, &own)?) {
            if other.as_slice() != own {
                let (got, expected) = ("another number of values".to_owned(), format!("{values} values"));
                return Err(ParallelError::OutOfStep { rank, op, step, got, expected });
            }
        }
        Ok(())
    }

    /// Adds up what members have: each adds a slice, in the order of members, and hands it to all.
    ///
    /// # Errors
    /// As [`Collective::exchange_among`].
    fn all_reduce_by_slices(
        &self,
        call: Call,
        members: &[usize],
        values: &mut [f32],
    ) -> Result<(), ParallelError> {
        let length = values.len();
        let slice = |index| part(index, members.len(), length);
        let outgoing: Vec<&[u8]> =
            (0..members.len()).map(|index| bytemuck::cast_slice(&values[slice(index)])).collect();
        let own = members.iter().position(|rank| *rank == self.rank()).map_or(0, |index| slice(index).len());
        let mut sum = vec![0.0f32; own];
        let bytes = size_of_val(sum.as_slice());
        for (&rank, message) in members.iter().zip(self.exchange_among(call, members, &outgoing)?) {
            expect_bytes(rank, call.op, call.step, message.len(), bytes)?;
            sum.iter_mut().zip(floats(&message)).for_each(|(sum, value)| *sum += value);
        }
        let finished = self.all_gather_among(call, members, bytemuck::cast_slice(&sum))?;
        for (index, (&rank, message)) in members.iter().zip(finished).enumerate() {
            let range = slice(index);
            expect_bytes(rank, call.op, call.step, message.len(), range.len() * size_of::<f32>())?;
            values[range].iter_mut().zip(floats(&message)).for_each(|(value, sum)| *value = sum);
        }
        Ok(())
    }
}

/// Ranks that are processes: each sees the others only through messages.
pub trait Processes: Collective {
    /// Ends every rank, whatever it is doing, this one included.
    fn end_all(&self, exit: Exit) -> !;
}
