//! Gathering that goes on while a rank computes: begun early, waited for when it is needed.

use std::ops::Deref;
use std::sync::Arc;

use super::ranks::expect_bytes;
use super::{Call, ParallelError};

/// What one rank has sent.
#[derive(Debug)]
pub enum Bytes {
    /// Memory that others may look at too.
    Shared(Arc<[u8]>),
    /// A copy of our own.
    Own(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

/// A gathering that has begun. It must be waited for, in the order in which gatherings were begun.
pub trait Pending: std::fmt::Debug {
    /// Lets an engine that moves nothing by itself go on.
    fn poll(&mut self) {}

    /// Waits for what every member has sent, in their order, this rank included.
    ///
    /// # Errors
    /// [`ParallelError::Lost`] with the rank that ended or did not come in time.
    fn wait(self: Box<Self>, call: Call) -> Result<Vec<Bytes>, ParallelError>;
}

/// A gathering that an engine has finished at once.
#[derive(Debug)]
pub(super) struct Gathered(pub(super) Vec<Vec<u8>>);

impl Pending for Gathered {
    fn wait(self: Box<Self>, _: Call) -> Result<Vec<Bytes>, ParallelError> {
        Ok(self.0.into_iter().map(Bytes::Own).collect())
    }
}

/// Parts of something on their way from the ranks that keep them.
#[derive(Debug)]
pub struct Gathering<'a> {
    pub(super) op: &'static str,
    pub(super) step: u64,
    pub(super) members: Vec<usize>,
    pub(super) lengths: Vec<usize>,
    pub(super) pending: Box<dyn Pending + 'a>,
}

impl Gathering<'_> {
    /// Lets it go on, between two pieces of work.
    pub fn poll(&mut self) {
        self.pending.poll();
    }

    pub(super) fn wait(self, call: Call) -> Result<Vec<Bytes>, ParallelError> {
        let Self { op, step, members, lengths, pending } = self;
        let parts = pending.wait(call)?;
        for ((rank, part), expected) in members.iter().zip(&parts).zip(lengths) {
            expect_bytes(*rank, op, step, part.len(), expected)?;
        }
        Ok(parts)
    }
}
