//! Memory of whole cache lines, kept by a thread from one task to the next.

use std::cell::RefCell;
use std::ops::{Range, RangeFrom};

use bytemuck::{Pod, Zeroable};

/// One cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A buffer that starts at a cache line.
#[derive(Default)]
pub(crate) struct Lines(Vec<Line>);

impl Lines {
    /// A buffer of at least `bytes` bytes, all zero.
    pub(crate) fn zeroed(bytes: usize) -> Self {
        Self(bytemuck::zeroed_vec(bytes.div_ceil(64)))
    }

    /// Grows to at least `bytes` bytes.
    fn reserve(&mut self, bytes: usize) {
        let lines = bytes.div_ceil(64);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; 64]));
        }
    }

    /// The bytes from `start` on.
    pub(crate) fn bytes(&self, start: RangeFrom<usize>) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[start]
    }

    /// A range of bytes, to be written.
    pub(crate) fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.0)[range]
    }

    /// The elements as `T`.
    pub(crate) fn of<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.0)
    }

    /// The elements as `T`.
    pub(crate) fn of_mut<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// Runs `f` with this thread's buffer of at least `bytes` bytes, whatever they hold.
pub(crate) fn with_lines<R>(bytes: usize, f: impl FnOnce(&mut Lines) -> R) -> R {
    thread_local! {
        static LINES: RefCell<Lines> = RefCell::default();
    }
    LINES.with_borrow_mut(|lines| {
        lines.reserve(bytes);
        f(lines)
    })
}
