//! A tensor of plain floats or ggml blocks in its file, decoded a stretch at a time.

use seedcorn_kernels::ggml::{self, GgmlType};

/// Values that a stretch begins and ends on a multiple of: those of the longest ggml block.
pub const STRETCH_UNIT: usize = 256;

/// How the elements of a [`Plain`] are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Floats or blocks of a ggml type.
    Ggml(GgmlType),
    /// Doubles.
    F64,
}

/// Order of the rows in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// That of Hugging Face.
    Same,
    /// Within each head, the two rows of a rotary pair are neighbours.
    Pairs {
        /// Rows of one head.
        rows_per_head: usize,
    },
}

/// A tensor whose values can be decoded in any order; nothing of it is in memory yet.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) encoding: Encoding,
    pub(super) rows: Rows,
    /// Values of a row, whole blocks.
    pub(super) cols: usize,
    pub(super) len: usize,
}

impl Plain<'_> {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Decodes the values from flat position `start` on, row-major, on the calling thread.
    ///
    /// # Panics
    /// When the stretch does not lie in the tensor, or begins or ends within a block. Whole rows and multiples
    /// of [`STRETCH_UNIT`] never do.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        match self.rows {
            Rows::Same => self.decode(start, out),
            Rows::Pairs { rows_per_head } => {
                let (mut at, mut rest) = (start, out);
                while !rest.is_empty() {
                    let (row, col) = (at / self.cols, at % self.cols);
                    let (part, tail) = rest.split_at_mut(rest.len().min(self.cols - col));
                    self.decode(stored_row(row, rows_per_head) * self.cols + col, part);
                    at += part.len();
                    rest = tail;
                }
            }
        }
    }

    /// Decodes a stretch of the file's own order.
    fn decode(&self, start: usize, out: &mut [f32]) {
        match self.encoding {
            Encoding::Ggml(ty) => {
                assert_eq!(start % ty.block_len(), 0, "a stretch begins within a {} block", ty.name());
                let first = start / ty.block_len() * ty.block_bytes();
                let bytes = &self.bytes[first..][..out.len() / ty.block_len() * ty.block_bytes()];
                ggml::dequantize_here(ty, bytes, out);
            }
            Encoding::F64 => {
                let values = &self.bytes.as_chunks().0[start..][..out.len()];
                out.iter_mut().zip(values).for_each(|(out, &bytes)| *out = f64::from_le_bytes(bytes) as f32);
            }
        }
    }
}

/// Row of a stored q or k weight that belongs at `row`: in the file, rotary pairs are neighbours; in Hugging Face
/// order, the second of each pair is half a head further.
fn stored_row(row: usize, rows_per_head: usize) -> usize {
    let (head, row) = (row / rows_per_head, row % rows_per_head);
    let half = rows_per_head / 2;
    head * rows_per_head + row % half * 2 + row / half
}
