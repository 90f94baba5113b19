//! Memory of whole cache lines, kept by a thread from one task to the next.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range, RangeFrom};
use std::sync::{Mutex, PoisonError};

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

/// A buffer of whatever bytes that goes back to a pool when it is dropped: large buffers are wanted again and again,
/// and fresh pages cost more than the work on them.
pub(crate) struct Pooled(Lines);

static POOL: Mutex<Vec<Lines>> = Mutex::new(Vec::new());

impl Pooled {
    /// Takes a buffer of at least `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |lines: &Lines| lines.0.len() >= bytes.div_ceil(64);
        let smallest =
            pool.iter().enumerate().filter(|(_, lines)| fits(lines)).min_by_key(|(_, lines)| lines.0.len());
        let found = smallest.map(|(index, _)| index);
        // A buffer that is too small is given up rather than kept beside the larger one.
        let taken = if let Some(index) = found { Some(pool.swap_remove(index)) } else { pool.pop() };
        drop(pool);
        Self(taken.filter(|lines| fits(lines)).unwrap_or_else(|| Lines::zeroed(bytes)))
    }
}

impl Deref for Pooled {
    type Target = Lines;

    fn deref(&self) -> &Lines {
        &self.0
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Lines {
        &mut self.0
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        POOL.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.0));
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
