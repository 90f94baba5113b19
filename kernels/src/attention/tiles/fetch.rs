//! Fetching rows into the second-level cache while something else is computed.
//!
//! A head's part of a row is a few cache lines, and rows lie kilobytes apart, so the processor foresees none
//! of it: read when needed, a row costs a whole trip to the third level. Only a dozen lines can be under way
//! at a time, so they are asked for one by one between vector instructions.

use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T1, _mm_prefetch};

use super::queries::Columns;

/// f32 elements of a cache line.
const LINE: usize = 16;

/// Lines yet to be fetched: the same columns of consecutive rows.
#[derive(Clone, Copy)]
pub(super) struct Fetch {
    /// Address of the next row's part.
    row: *const f32,
    stride: usize,
    lines_per_row: usize,
    /// The next line of the row.
    line: usize,
    /// Lines that are left.
    lines: usize,
}

impl Default for Fetch {
    fn default() -> Self {
        Self { row: std::ptr::null(), stride: 0, lines_per_row: 1, line: 0, lines: 0 }
    }
}

impl Fetch {
    /// Fetches what a block of queries has in rows of `stride` elements, for the segment that starts at `start`.
    pub(super) fn of(data: *const f32, stride: usize, columns: Columns, start: usize) -> Self {
        let layout = columns.shape.layout;
        let first = layout.q(columns.kv_head * layout.group()).start;
        // One more line, since rows start anywhere.
        let lines_per_row = (layout.group() * layout.head_dim).div_ceil(LINE) + 1;
        Self {
            row: data.wrapping_add((start + columns.first) * stride + first),
            stride,
            lines_per_row,
            line: 0,
            lines: (columns.end - columns.first) * lines_per_row,
        }
    }

    /// Fetches the next line, to be read.
    #[inline(always)]
    pub(super) fn read(&mut self) {
        // SAFETY: fetching has no effect but on caches, at any address.
        self.next(|at| unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) });
    }

    /// Fetches the next line, to be written.
    #[inline(always)]
    pub(super) fn write(&mut self) {
        // SAFETY: as above; a processor without the hint does nothing.
        self.next(|at| unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast()) });
    }

    #[inline(always)]
    fn next(&mut self, fetch: impl Fn(*const f32)) {
        if self.lines > 0 {
            self.lines -= 1;
            fetch(self.row.wrapping_add(self.line * LINE));
            self.line += 1;
            if self.line == self.lines_per_row {
                self.line = 0;
                self.row = self.row.wrapping_add(self.stride);
            }
        }
    }
}
