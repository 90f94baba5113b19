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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::parallel::Collective;
    use crate::parallel::threads::tests::as_processes;

    const CALL: Call = Call { op: "weights", step: 7, patience: Duration::from_millis(300) };

    /// Runs `body` as each of some ranks.
    fn each<T: Send>(count: usize, body: impl Fn(&dyn Collective) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let ranks: Vec<_> = as_processes(count)
                .into_iter()
                .map(|engine| {
                    let body = &body;
                    scope.spawn(move || body(engine.as_ref()))
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().expect("no panic")).collect()
        })
    }

    #[test]
    fn other_calls_come_between() {
        let seen = each(3, |ranks| {
            let mut seen = Vec::new();
            for round in 0..20u8 {
                let own: Arc<[u8]> = vec![round; 1 + ranks.rank()].into();
                let begun = ranks.start_gather(CALL, &[0, 1, 2], own, &[1, 2, 3]).expect("begun");
                ranks.all_gather(CALL, &[9]).expect("all are there");
                let parts = begun.wait(CALL).expect("all are there");
                seen.push(parts.iter().map(|part| part.to_vec()).collect::<Vec<_>>());
            }
            seen
        });
        let expected: Vec<_> = (0..20u8).map(|round| [1, 2, 3].map(|length| vec![round; length])).collect();
        assert!(seen.iter().all(|one| *one == expected));
    }

    #[test]
    fn a_rank_that_does_not_come_is_named() {
        let errors = each(2, |ranks| {
            if ranks.rank() == 1 {
                return None;
            }
            let begun = ranks.start_gather(CALL, &[0, 1], Arc::from([1u8].as_slice()), &[1, 1]);
            Some(begun.expect("nobody is waited for yet").wait(CALL).expect_err("rank 1 is away").to_string())
        });
        let text = "rank 1 was lost at `weights` of step 7: it did not come within 0.30 s";
        assert_eq!(errors, [Some(text.to_owned()), None]);
    }

    #[test]
    fn parts_have_the_length_that_is_known() {
        let errors = each(2, |ranks| {
            let own: Arc<[u8]> = vec![0; 4 - ranks.rank()].into();
            let pending = ranks.start_gather(CALL, &[0, 1], own, &[4, 4]).expect("begun");
            let gathering =
                Gathering { op: "weights", step: 7, members: vec![0, 1], lengths: vec![4, 4], pending };
            gathering.wait(CALL).expect_err("rank 1 sent less").to_string()
        });
        let text = "rank 1 is out of step: at `weights` of step 7 it sent 3 bytes, expected 4 bytes";
        assert_eq!(errors, [text, text]);
    }
}
