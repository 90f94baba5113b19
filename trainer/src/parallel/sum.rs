//! The sum of a step's losses and gradients over all ranks, with the bits of one rank.
//!
//! Gradients travel twice. First every rank gets its slice of the values of all parts, and adds the parts in the shape of
//! the tree; then every rank gets the finished slices of all others. With one part a rank that is what a ring
//! sends, and no rank ever holds the gradients of all others.

use std::borrow::Cow;
use std::ops::Range;

use super::ranks::{GRADIENTS, expect_bytes, numbers};
use super::reduce::{join, parts};
use super::{ParallelError, Ranks};
use crate::model::{Gradients, Loss, Summed, Tree};
use crate::recipe::Reduction;

type Item = (Loss, Gradients);

/// A step's sum, as far as this rank has come with its share.
pub struct SumOverRanks<'a> {
    ranks: &'a Ranks<'a>,
    step: u64,
    items: usize,
    reduction: Reduction,
    /// The parts of the tree that this rank adds.
    parts: Vec<Range<usize>>,
    done: Vec<Item>,
    current: Tree<Item>,
    next: usize,
}

/// A finished sum, the same on every rank.
#[derive(Debug)]
pub struct Sum {
    /// Of the losses.
    pub loss: Loss,
    /// Of the gradients.
    pub gradients: Summed,
    /// Whether a rank was asked to stop.
    pub stop: bool,
}

fn tree() -> Tree<Item> {
    Tree::new(|left, right| (left.0.plus(right.0), left.1.plus(right.1)))
}

impl<'a> SumOverRanks<'a> {
    pub(super) fn new(ranks: &'a Ranks<'a>, step: u64, items: usize, reduction: Reduction) -> Self {
        let share = ranks.share(items);
        let parts = parts(items, &share);
        Self { ranks, step, items, reduction, parts, done: Vec::new(), current: tree(), next: share.start }
    }

    /// Takes the loss and the gradients of the next micro-batch of this rank's share.
    ///
    /// # Panics
    /// When the share is used up.
    pub fn push(&mut self, item: Item) {
        self.current.push(item);
        self.next += 1;
        if self.next == self.parts[self.done.len()].end {
            let finished = std::mem::replace(&mut self.current, tree());
            self.done.push(finished.finish().expect("an item was pushed"));
        }
    }

    /// Adds up what all ranks have. `lengths` are those of the gradients' tensors, `stop` whether this rank was asked
    /// to stop.
    ///
    /// # Errors
    /// [`ParallelError`]
    ///
    /// # Panics
    /// When the share was not pushed whole, or the sum is over nothing.
    pub fn finish(mut self, lengths: &[usize], stop: bool) -> Result<Sum, ParallelError> {
        assert_eq!(self.done.len(), self.parts.len(), "the share was not pushed whole");
        if self.ranks.mesh().data == 1 {
            let (loss, gradients) = self.done.pop().expect("a sum is over one item at least");
            return Ok(Sum { loss, gradients: gradients.summed(), stop });
        }
        let done = self.done.drain(..).map(|(loss, gradients)| (loss.value(), gradients));
        let (losses, gradients): (Vec<f64>, Vec<Gradients>) = done.unzip();
        let (loss, stop) = self.losses(&losses, stop)?;
        let flat = gradients.into_iter().map(|one| one.into_values().concat());
        let total = match self.reduction {
            Reduction::Tree => self.gradients(flat.collect(), lengths.iter().sum())?,
            Reduction::Fast => {
                // Without a micro-batch of its own a rank adds nothing.
                let mut own = flat
                    .reduce(|left, right| add(left, &right))
                    .unwrap_or_else(|| vec![0.0; lengths.iter().sum()]);
                self.ranks.add_up_gradients(self.step, &mut own)?;
                own
            }
        };
        let mut rest = total.as_slice();
        let mut tensor = |&length: &usize| {
            let (values, after) = rest.split_at(length);
            rest = after;
            values.to_vec()
        };
        let gradients = Summed::Here(lengths.iter().map(&mut tensor).collect());
        Ok(Sum { loss: Loss::Known(loss), gradients, stop })
    }

    fn parts_of(&self, data_index: usize) -> Vec<Range<usize>> {
        parts(self.items, &self.ranks.mesh().share(data_index, self.items))
    }

    /// Adds the losses, and asks whether anyone is to stop.
    fn losses(&self, own: &[f64], stop: bool) -> Result<(f64, bool), ParallelError> {
        const OP: &str = "loss";
        let mut message = vec![u8::from(stop)];
        message.extend_from_slice(bytemuck::cast_slice(own));
        let mut sums = Vec::new();
        let mut stops = false;
        for (index, message) in self.ranks.gather_shares(OP, self.step, &message)?.iter().enumerate() {
            let parts = self.parts_of(index);
            self.expect(index, OP, message, 1 + parts.len() * size_of::<f64>())?;
            stops |= message[0] != 0;
            sums.extend(parts.into_iter().zip(numbers(&message[1..])));
        }
        Ok((join(self.items, sums, &|left, right| left + right).expect("one item at least"), stops))
    }

    /// Adds gradients: `own` are those of this rank's parts, each with all `length` values.
    fn gradients(&self, own: Vec<Vec<f32>>, length: usize) -> Result<Vec<f32>, ParallelError> {
        let data = self.ranks.mesh().data;
        let slice = |index: usize| self.ranks.mesh().share(index, length);
        let outgoing: Vec<Cow<[u8]>> = (0..data)
            .map(|index| match own.as_slice() {
                [part] => Cow::Borrowed(bytemuck::cast_slice(&part[slice(index)])),
                parts => {
                    let slices =
                        parts.iter().map(|part| bytemuck::cast_slice::<f32, u8>(&part[slice(index)]));
                    Cow::Owned(slices.collect::<Vec<_>>().concat())
                }
            })
            .collect();
        let outgoing: Vec<&[u8]> = outgoing.iter().map(AsRef::as_ref).collect();
        let incoming = self.ranks.exchange_shares(GRADIENTS, self.step, &outgoing)?;
        drop(own);
        let bytes = slice(self.ranks.data_index()).len() * size_of::<f32>();
        let mut sums = Vec::new();
        for (index, message) in incoming.iter().enumerate() {
            let parts = self.parts_of(index);
            self.expect(index, GRADIENTS, message, parts.len() * bytes)?;
            let of_part = |part: usize| floats(&message[part * bytes..(part + 1) * bytes]).collect();
            sums.extend(parts.into_iter().enumerate().map(|(part, range)| (range, of_part(part))));
        }
        drop(incoming);
        let sum = join(self.items, sums, &|left, right: Vec<f32>| add(left, &right));
        let sum = sum.expect("one item at least");
        let mut total = Vec::with_capacity(length);
        let finished = vec![bytemuck::cast_slice(&sum); data];
        for (index, message) in
            self.ranks.exchange_shares(GRADIENTS, self.step, &finished)?.iter().enumerate()
        {
            self.expect(index, GRADIENTS, message, slice(index).len() * size_of::<f32>())?;
            total.extend(floats(message));
        }
        Ok(total)
    }

    fn expect(
        &self,
        data_index: usize,
        op: &'static str,
        got: &[u8],
        bytes: usize,
    ) -> Result<(), ParallelError> {
        expect_bytes(self.ranks.rank_of_share(data_index), op, self.step, got.len(), bytes)
    }
}

fn add(mut left: Vec<f32>, right: &[f32]) -> Vec<f32> {
    left.iter_mut().zip(right).for_each(|(left, right)| *left += right);
    left
}

/// Reads numbers wherever they stand in memory.
pub(super) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers.iter().map(|number| f32::from_ne_bytes(*number))
}
