//! What ranks do together. Engines say how messages travel; everything else is made of that.

use std::time::Duration;

use super::ranks::expect_bytes;
use super::sum::floats;
use super::{Mesh, ParallelError};
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

    /// Sends `outgoing[r]` to each rank `r` and returns what every rank sent here, in the order of ranks, this one
    /// included.
    ///
    /// # Errors
    /// [`ParallelError::Lost`] with the rank that ended or did not come in time.
    fn exchange(&self, call: Call, outgoing: &[&[u8]]) -> Result<Vec<Vec<u8>>, ParallelError>;

    /// Sends the same to every rank and returns what each has sent, in the order of ranks.
    ///
    /// # Errors
    /// As [`Collective::exchange`].
    fn all_gather(&self, call: Call, own: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        self.exchange(call, &vec![own; self.size()])
    }

    /// Adds up what all ranks have, in an order of the engine's own; every rank gets the same sum. Here each rank adds a
    /// slice, in the order of ranks, and hands it to all.
    ///
    /// # Errors
    /// As [`Collective::exchange`].
    fn all_reduce(&self, call: Call, values: &mut [f32]) -> Result<(), ParallelError> {
        let mesh = Mesh { data: self.size() };
        let slice = |rank| mesh.share(rank, values.len());
        let outgoing: Vec<&[u8]> =
            (0..self.size()).map(|rank| bytemuck::cast_slice(&values[slice(rank)])).collect();
        let mut sum = vec![0.0f32; slice(self.rank()).len()];
        for (rank, message) in self.exchange(call, &outgoing)?.iter().enumerate() {
            expect_bytes(rank, call.op, call.step, message.len(), size_of_val(sum.as_slice()))?;
            sum.iter_mut().zip(floats(message)).for_each(|(sum, value)| *sum += value);
        }
        let finished = self.all_gather(call, bytemuck::cast_slice(&sum))?;
        for (rank, message) in finished.iter().enumerate() {
            let range = mesh.share(rank, values.len());
            expect_bytes(rank, call.op, call.step, message.len(), range.len() * size_of::<f32>())?;
            values[range].iter_mut().zip(floats(message)).for_each(|(value, sum)| *value = sum);
        }
        Ok(())
    }
}

/// Ranks that are processes: each sees the others only through messages.
pub trait Processes: Collective {
    /// Ends every rank, whatever it is doing, this one included.
    fn end_all(&self, exit: Exit) -> !;
}
