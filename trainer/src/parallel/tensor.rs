//! What the ranks that hold the slices of one model ask of each other while they compute.

use super::ranks::expect_bytes;
use super::sum::floats;
use super::{ParallelError, Ranks};

/// The ranks that hold one model together, seen from one of them in one step.
#[derive(Clone, Copy, Debug)]
pub struct TensorRanks<'a> {
    ranks: Option<&'a Ranks<'a>>,
    step: u64,
}

impl TensorRanks<'static> {
    /// The one rank of a model that is not cut.
    pub fn alone() -> Self {
        TensorRanks { ranks: None, step: 0 }
    }
}

impl<'a> Ranks<'a> {
    /// Returns those that hold one model together with this rank, for the calls of a step.
    pub fn tensor(&'a self, step: u64) -> TensorRanks<'a> {
        TensorRanks { ranks: (self.mesh().tensor > 1).then_some(self), step }
    }
}

impl TensorRanks<'_> {
    /// Returns how many they are.
    pub fn size(&self) -> usize {
        self.ranks.map_or(1, |ranks| ranks.tensor_group().len())
    }

    /// Returns which slice of every layer is this rank's.
    pub fn index(&self) -> usize {
        self.ranks.map_or(0, |ranks| ranks.mesh().tensor_index(ranks.rank()))
    }

    /// Adds equally long lists, element by element.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn sum(&self, op: &'static str, mut own: Vec<f32>) -> Result<Vec<f32>, ParallelError> {
        if let Some(ranks) = self.ranks {
            ranks.within_model(op, self.step, |engine, call, members| {
                engine.all_reduce_by_slices(call, members, &mut own)
            })?;
        }
        Ok(own)
    }

    /// Puts together what each of them has, in their order; `length` says how many values that is of each.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn gather(
        &self,
        op: &'static str,
        own: &[f32],
        length: impl Fn(usize) -> usize,
    ) -> Result<Vec<Vec<f32>>, ParallelError> {
        let bytes = |index| length(index) * size_of::<f32>();
        let all = self.gather_bytes(op, bytemuck::cast_slice(own), bytes)?;
        Ok(all.iter().map(|message| floats(message).collect()).collect())
    }

    /// Whether it is so on any of them.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn any(&self, op: &'static str, own: bool) -> Result<bool, ParallelError> {
        Ok(self.gather_bytes(op, &[u8::from(own)], |_| 1)?.iter().any(|one| one[0] != 0))
    }

    /// As [`TensorRanks::gather`], of anything.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn gather_bytes(
        &self,
        op: &'static str,
        own: &[u8],
        bytes: impl Fn(usize) -> usize,
    ) -> Result<Vec<Vec<u8>>, ParallelError> {
        let Some(ranks) = self.ranks else { return Ok(vec![own.to_vec()]) };
        let all = ranks.within_model(op, self.step, |engine, call, members| {
            engine.all_gather_among(call, members, own)
        })?;
        for (index, (&rank, message)) in ranks.tensor_group().iter().zip(&all).enumerate() {
            expect_bytes(rank, op, self.step, message.len(), bytes(index))?;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::parallel::Mesh;
    use crate::parallel::threads::tests::as_processes;

    /// Runs `body` as each rank of a mesh.
    fn each<T: Send>(mesh: Mesh, body: impl Fn(&Ranks) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let ranks: Vec<_> = as_processes(mesh.ranks())
                .into_iter()
                .map(|engine| {
                    let body = &body;
                    scope.spawn(move || body(&Ranks::new(engine.as_ref(), mesh, Duration::from_mins(1))))
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().expect("no panic")).collect()
        })
    }

    fn addend(rank: usize, length: usize) -> Vec<f32> {
        (0..length).map(|place| ((rank * 31 + place * 7) as f32).sin()).collect()
    }

    #[test]
    fn sums_are_in_the_order_of_ranks() {
        let mesh = Mesh { data: 2, tensor: 3 };
        for length in [0, 2, 100_003] {
            let sums = each(mesh, |ranks| {
                ranks.tensor(1).sum("test", addend(ranks.rank(), length)).expect("all are there")
            });
            for (rank, sum) in sums.iter().enumerate() {
                let first = rank / 3 * 3;
                let [a, b, c] = [0, 1, 2].map(|index| addend(first + index, length));
                let expected = a.iter().zip(&b).zip(&c).map(|((a, b), c)| ((a + b) + c).to_bits());
                assert!(sum.iter().map(|value| value.to_bits()).eq(expected), "rank {rank}, {length}");
            }
        }
    }

    #[test]
    fn what_each_has_is_put_together() {
        let gathered = each(Mesh { data: 2, tensor: 2 }, |ranks| {
            let own = addend(ranks.rank(), 1 + ranks.rank() % 2);
            ranks.tensor(1).gather("test", &own, |index| 1 + index).expect("all are there")
        });
        assert_eq!(gathered[2], [addend(2, 1), addend(3, 2)]);
        assert_eq!(gathered[0], gathered[1]);
        assert_ne!(gathered[1], gathered[2]);
        let error = each(Mesh { data: 1, tensor: 2 }, |ranks| {
            ranks.tensor(4).gather("test", &addend(0, 1 + ranks.rank()), |_| 1).map(|_| ())
        });
        let text = error[0].as_ref().expect_err("rank 1 sent more").to_string();
        assert_eq!(text, "rank 1 is out of step: at `test` of step 4 it sent 8 bytes, expected 4 bytes");
    }

    #[test]
    fn a_rank_alone_keeps_what_it_has() {
        let alone = TensorRanks::alone();
        assert_eq!((alone.size(), alone.index()), (1, 0));
        assert_eq!(
            alone.sum("test", vec![-0.0]).expect("no one else").first().map(|v| v.to_bits()),
            Some(1 << 31)
        );
    }
}
