//! From the gradients of a slice's factors to those of the whole adapter.
//!
//! A layer that is cut by rows uses all of `A` and its rows of `B`, one that is cut by columns its columns of `A` and all of
//! `B`. What every slice uses has a share of its gradient on each rank: they are added up. The rest is put together.

use seedcorn_adapters::Adapter;
use seedcorn_kernels::section::Section;

use super::decoder::{Decoder, Model};
use super::gradients::Summed;
use crate::parallel::ParallelError;

/// The gradients of factors, once a step, among the ranks that hold one model.
pub(crate) const FACTORS: &str = "factors";

/// A trained tensor as a slice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factor {
    /// All of it, of so many values.
    Shared(usize),
    /// Some of its rows.
    Rows {
        /// Values of them.
        here: usize,
    },
    /// Some columns of every row.
    Columns {
        /// Rows of the tensor.
        rows: usize,
        /// How many columns.
        here: usize,
    },
}

impl Factor {
    /// Values that a slice has of it.
    fn len(self) -> usize {
        match self {
            Self::Shared(len) | Self::Rows { here: len } => len,
            Self::Columns { rows, here } => rows * here,
        }
    }

    fn is_shared(self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// Puts the parts of all slices together.
    fn whole(self, parts: &[&[f32]]) -> Vec<f32> {
        match self {
            Self::Shared(_) | Self::Rows { .. } => parts.concat(),
            Self::Columns { rows, here } => {
                let row = |row: usize| parts.iter().flat_map(move |part| &part[row * here..(row + 1) * here]);
                (0..rows).flat_map(row).copied().collect()
            }
        }
    }
}

impl Decoder {
    /// Returns the number of values of every trained tensor that this slice has a gradient of, in the order of
    /// [`Adapter::values`].
    pub fn factor_lengths(&self, adapter: &Adapter) -> Vec<usize> {
        self.factors(adapter).into_iter().map(Factor::len).collect()
    }

    fn factors(&self, adapter: &Adapter) -> Vec<Factor> {
        let whole = |[rows, columns]: [usize; 2]| Factor::Shared(rows * columns);
        let mut factors: Vec<Factor> = adapter
            .modules()
            .iter()
            .flat_map(|module| [whole(module.a.dims()), whole(module.b.dims())])
            .collect();
        for projection in self.projections() {
            let (Some(place), Some(part)) = (adapter.place(&projection.name), &projection.part) else {
                continue;
            };
            let rank = adapter.modules()[place].a.dims()[0];
            match part {
                Section::Rows(rows) => factors[2 * place + 1] = Factor::Rows { here: rows.len() * rank },
                Section::Columns(columns) => {
                    factors[2 * place] = Factor::Columns { rows: rank, here: columns.len() };
                }
            }
        }
        factors
    }
}

impl Model<'_> {
    /// Makes the gradients of the whole adapter from those of this rank's slice, which lie as
    /// [`Decoder::factor_lengths`] says; every rank gets the same.
    ///
    /// # Errors
    /// What the other ranks of the model make of it.
    pub fn whole_gradients(self, adapter: &Adapter, own: Summed) -> Result<Summed, ParallelError> {
        let ranks = self.tensor();
        let own = match own {
            Summed::Here(own) if ranks.size() > 1 => own,
            // A device has one rank.
            whole => return Ok(whole),
        };
        let factors = self.decoder.factors(adapter);
        let (mut shared, mut parts) = (Vec::new(), Vec::new());
        for (factor, values) in factors.iter().zip(own) {
            let list = if factor.is_shared() { &mut shared } else { &mut parts };
            list.extend(values);
        }
        let shared = ranks.sum(FACTORS, shared)?;
        // Slices are equal, and so are the lengths of what they have.
        let length = parts.len();
        let slices = ranks.gather(FACTORS, &parts, |_| length)?;
        let (mut of_shared, mut of_parts) = (0, 0);
        let whole = factors.into_iter().map(|factor| {
            let (place, len) =
                (if factor.is_shared() { &mut of_shared } else { &mut of_parts }, factor.len());
            let range = *place..*place + len;
            *place += len;
            if factor.is_shared() {
                return shared[range].to_vec();
            }
            factor.whole(&slices.iter().map(|slice| &slice[range.clone()]).collect::<Vec<_>>())
        });
        Ok(Summed::Here(whole.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::Factor;

    #[test]
    fn parts_are_put_together() {
        let rows = Factor::Rows { here: 2 };
        assert_eq!(rows.whole(&[&[1.0, 2.0], &[3.0, 4.0]]), [1.0, 2.0, 3.0, 4.0]);
        let columns = Factor::Columns { rows: 2, here: 1 };
        assert_eq!(columns.whole(&[&[1.0, 3.0], &[2.0, 4.0]]), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!((rows.len(), columns.len(), Factor::Shared(7).len()), (2, 2, 7));
    }
}
