//! A table of which every rank keeps some rows: of every range of rows a part, so that the ranks send as much as each
//! other whichever range is needed.

use std::ops::Range;
use std::sync::Arc;

use seedcorn_kernels::frozen::{Compute, Form, FrozenWeight, Storage};
use seedcorn_kernels::linear_cross_entropy::BORDER;

use super::Cut;
use crate::parallel::Bytes;

/// Rows of a range at least, and what their number is a multiple of.
const LEAST: usize = BORDER;

/// An embedding or a head.
#[derive(Debug)]
pub(in crate::model) struct SharedTable {
    cut: Cut,
    /// `[rows, width]` of the whole.
    shape: [usize; 2],
    compute: Compute,
    /// Rows of each range but the last.
    range: usize,
    /// This rank's rows of each range.
    own: Vec<Arc<[u8]>>,
}

impl SharedTable {
    /// Takes this rank's rows of a table; `read` gives some rows. A range has about half of the `block_values` of a
    /// block in bytes: no more than a block takes in its smallest storage.
    pub(in crate::model) fn new(
        cut: Cut,
        shape: [usize; 2],
        compute: Compute,
        block_values: usize,
        read: impl Fn(Range<usize>) -> Storage,
    ) -> Self {
        let range = rows_of_range(shape, compute, block_values);
        let mut table = Self { cut, shape, compute, range, own: Vec::new() };
        for index in 0..table.ranges() {
            let storage = read(table.rows_of(cut.index, index));
            let mut bytes = Vec::new();
            storage.copy_bytes(0..storage.form().bytes(), &mut bytes);
            table.own.push(bytes.into());
        }
        table
    }

    /// Returns the number of ranges.
    pub(super) fn ranges(&self) -> usize {
        self.shape[0].div_ceil(self.range)
    }

    /// Returns the bytes that this rank keeps.
    pub(super) fn bytes(&self) -> usize {
        self.own.iter().map(|rows| rows.len()).sum()
    }

    /// Returns the bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.shape[1] * value_bytes(self.compute)
    }

    /// Returns the first row of a range.
    pub(super) fn start(&self, range: usize) -> usize {
        range * self.range
    }

    /// Returns this rank's rows of a range.
    pub(super) fn own(&self, range: usize) -> &Arc<[u8]> {
        &self.own[range]
    }

    /// Returns the bytes that each rank keeps of a range.
    pub(super) fn lengths(&self, range: usize) -> Vec<usize> {
        (0..self.cut.count).map(|index| self.rows_of(index, range).len() * self.row_bytes()).collect()
    }

    /// Puts a range together from the rows of all ranks.
    pub(super) fn weight(&self, range: usize, parts: &[Bytes]) -> FrozenWeight {
        let (rows, width) = (self.rows(range).len(), self.shape[1]);
        let form = Form::dense(self.compute, rows * width);
        let storage = form.storage(parts.iter().map(|part| &**part));
        FrozenWeight::new(storage, [rows, width], self.compute)
    }

    /// Returns the rank that keeps a row.
    pub(super) fn keeper(&self, row: usize) -> usize {
        let rows = self.rows(row / self.range);
        let (at, count) = (row - rows.start, rows.len());
        // The inverse of the cut: the last rank whose part does not begin behind the row.
        let mut index = (at * self.cut.count / count).min(self.cut.count - 1);
        while self.cut.part(index, count).end <= at {
            index += 1;
        }
        index
    }

    /// Returns a row that this rank keeps.
    pub(super) fn row(&self, row: usize) -> Option<&[u8]> {
        let range = row / self.range;
        let place = row.checked_sub(self.rows_of(self.cut.index, range).start)?;
        self.own.get(range)?.chunks_exact(self.row_bytes()).nth(place)
    }

    /// Reads a row's bytes as f32.
    pub(super) fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        match self.compute {
            Compute::F32 => {
                let (values, _) = bytes.as_chunks::<4>();
                out.iter_mut().zip(values).for_each(|(out, value)| *out = f32::from_ne_bytes(*value));
            }
            Compute::Bf16 => {
                let (values, _) = bytes.as_chunks::<2>();
                let widen = |value: [u8; 2]| f32::from_bits(u32::from(u16::from_ne_bytes(value)) << 16);
                out.iter_mut().zip(values).for_each(|(out, value)| *out = widen(*value));
            }
        }
    }

    fn rows(&self, range: usize) -> Range<usize> {
        let start = range * self.range;
        start..self.shape[0].min(start + self.range)
    }

    /// Returns which rows of a range a rank keeps.
    fn rows_of(&self, index: usize, range: usize) -> Range<usize> {
        let rows = self.rows(range);
        let part = self.cut.part(index, rows.len());
        rows.start + part.start..rows.start + part.end
    }
}

/// Returns the bytes of a value of a table.
fn value_bytes(compute: Compute) -> usize {
    match compute {
        Compute::F32 => 4,
        Compute::Bf16 => 2,
    }
}

/// Returns the rows of a range of a table beside blocks of so many values.
pub(crate) fn rows_of_range(shape: [usize; 2], compute: Compute, block_values: usize) -> usize {
    let rows = block_values / 2 / (shape[1] * value_bytes(compute)).max(1);
    (rows / LEAST * LEAST).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(index: usize, count: usize, rows: usize) -> SharedTable {
        let read =
            |rows: Range<usize>| Storage::F32(rows.flat_map(|row| [row as f32, -(row as f32)]).collect());
        SharedTable::new(Cut { index, count }, [rows, 2], Compute::F32, 0, read)
    }

    #[test]
    fn every_row_is_kept_once() {
        for (count, rows) in [(1, 700), (2, 5), (3, 1700), (4, 2), (7, 512)] {
            let tables: Vec<_> = (0..count).map(|index| table(index, count, rows)).collect();
            assert_eq!(tables.iter().map(SharedTable::bytes).sum::<usize>(), rows * 8);
            for row in 0..rows {
                for (index, table) in tables.iter().enumerate() {
                    let kept = table.row(row);
                    assert_eq!(kept.is_some(), table.keeper(row) == index, "row {row} of {rows} on {index}");
                    let mut values = [0.0; 2];
                    if let Some(bytes) = kept {
                        table.decode(bytes, &mut values);
                    }
                    assert_eq!(values[0], if kept.is_some() { row as f32 } else { 0.0 });
                }
            }
            for range in 0..tables[0].ranges() {
                let parts: Vec<Bytes> =
                    tables.iter().map(|table| Bytes::Shared(table.own(range).clone())).collect();
                let weight = tables[0].weight(range, &parts);
                let mut first = [0.0; 2];
                weight.read_row(weight.shape()[0] - 1, &mut first);
                assert_eq!(first[0] as usize, rows.min(tables[0].start(range) + LEAST) - 1);
                let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
                assert_eq!(tables[0].lengths(range), lengths);
            }
        }
    }
}
