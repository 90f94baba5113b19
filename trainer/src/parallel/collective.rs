//! What ranks do together. Engines say how messages travel; everything else is made of that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

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

impl Call {
    /// Returns when the slowest rank must have come.
    pub(super) fn deadline(self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.patience).unwrap_or(now + Duration::from_hours(24))
    }

    /// Says that a rank has not come by then.
    pub(super) fn late(self, rank: usize) -> ParallelError {
        let Self { op, step, patience } = self;
        let how = format!("it did not come within {:.2} s", patience.as_secs_f64());
        ParallelError::Lost { rank, op, step, how }
    }
}

/// Values that one task adds.
const TASK_VALUES: usize = 1 << 14;

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

    /// Adds up what members have, in their order, whoever adds: each adds a slice, and hands it to all. So all of them go on
    /// with the same bits, and a rank sends what a ring would.
    ///
    /// # Errors
    /// As [`Collective::exchange_among`].
    fn all_reduce_by_slices(
        &self,
        call: Call,
        members: &[usize],
        values: &mut [f32],
    ) -> Result<(), ParallelError> {
        let (size, length) = (members.len(), values.len());
        let slice = |index| part(index, size, length);
        let expect = |rank, message: &[u8], values: usize| {
            expect_bytes(rank, call.op, call.step, message.len(), values * size_of::<f32>())
        };
        let outgoing: Vec<&[u8]> =
            (0..size).map(|index| bytemuck::cast_slice(&values[slice(index)])).collect();
        let own = members.iter().position(|rank| *rank == self.rank()).map_or(0, |index| slice(index).len());
        let addends = self.exchange_among(call, members, &outgoing)?;
        members.iter().zip(&addends).try_for_each(|(&rank, addend)| expect(rank, addend, own))?;
        let mut sum = vec![0.0f32; own];
        sum.par_chunks_mut(TASK_VALUES).enumerate().for_each(|(task, sum)| {
            let start = task * TASK_VALUES * size_of::<f32>();
            for (index, addend) in addends.iter().enumerate() {
                let values = sum.iter_mut().zip(floats(&addend[start..]));
                // The first is taken as it is, so that a sum of one value and zeros is that value.
                values.for_each(|(sum, value)| *sum = if index == 0 { value } else { *sum + value });
            }
        });
        drop(addends);
        let finished = vec![bytemuck::cast_slice(&sum); size];
        let finished = self.exchange_among(call, members, &finished)?;
        for (index, (&rank, message)) in members.iter().zip(&finished).enumerate() {
            expect(rank, message, slice(index).len())?;
            values[slice(index)].iter_mut().zip(floats(message)).for_each(|(value, sum)| *value = sum);
        }
        Ok(())
    }
}

/// Ranks that are processes: each sees the others only through messages.
pub trait Processes: Collective {
    /// Ends every rank, whatever it is doing, this one included.
    fn end_all(&self, exit: Exit) -> !;
}
