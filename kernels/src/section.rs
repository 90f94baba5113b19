//! Sections of a matrix that ranks hold: whole rows, or the same columns of every row.
//!
//! A layer that is cut by rows gives a part of its outputs; one that is cut by columns takes a part of its inputs and gives
//! an addend of its outputs.

use std::ops::Range;

/// A part of an `[out, in]` matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// These rows, whole.
    Rows(Range<usize>),
    /// These columns of all rows.
    Columns(Range<usize>),
}

impl Section {
    /// Returns the shape of the part.
    pub fn shape(&self, [out, width]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Rows(rows) => [rows.len(), width],
            Self::Columns(columns) => [out, columns.len()],
        }
    }

    /// Lists the stretches of a row-major matrix that make up the part, in order.
    ///
    /// # Panics
    /// When the part does not lie in the matrix.
    pub fn stretches(&self, [out, width]: [usize; 2]) -> impl Iterator<Item = Range<usize>> + use<> {
        let (first, count, step, length) = match self {
            Self::Rows(rows) => {
                assert!(rows.end <= out, "rows {rows:?} of {out}");
                (rows.start * width, 1, 0, rows.len() * width)
            }
            Self::Columns(columns) => {
                assert!(columns.end <= width, "columns {columns:?} of {width}");
                (columns.start, out, width, columns.len())
            }
        };
        (0..count).map(move |index| first + index * step..first + index * step + length)
    }
}
