//! Memory of whole cache lines, kept by a thread from one task to the next.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range, RangeFrom};
use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

/// One cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A buffer that starts at a cache line.
pub(crate) struct Lines(Memory);

/// Large buffers are mapped by themselves, in large pages where the system has them: operands are read in strides,
/// and small pages cost 10 to 20 % of a product here.
enum Memory {
    Heap(Vec<Line>),
    Mapped(MmapMut),
}

/// Bytes from which a buffer is mapped by itself. A stretch of rows inside a cache is large enough to gain from it.
const LARGE: usize = 128 << 10;

/// Bytes of a large page.
const PAGE: usize = 2 << 20;

impl Default for Lines {
    fn default() -> Self {
        Self(Memory::Heap(Vec::new()))
    }
}

impl Lines {
    /// A buffer of at least `bytes` bytes, all zero.
    pub(crate) fn zeroed(bytes: usize) -> Self {
        if bytes >= LARGE
            && let Ok(map) = MmapMut::map_anon(bytes.next_multiple_of(PAGE))
        {
            // Small pages do as well, only slower.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self(Memory::Mapped(map));
        }
        Self(Memory::Heap(bytemuck::zeroed_vec(bytes.div_ceil(64))))
    }

    /// Bytes that the buffer holds.
    fn len(&self) -> usize {
        match &self.0 {
            Memory::Heap(lines) => lines.len() * 64,
            Memory::Mapped(map) => map.len(),
        }
    }

    /// The bytes from `start` on.
    pub(crate) fn bytes(&self, start: RangeFrom<usize>) -> &[u8] {
        &self.of()[start]
    }

    /// A range of bytes, to be written.
    pub(crate) fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.of_mut()[range]
    }

    /// The elements as `T`.
    pub(crate) fn of<T: Pod>(&self) -> &[T] {
        match &self.0 {
            Memory::Heap(lines) => bytemuck::cast_slice(lines),
            Memory::Mapped(map) => bytemuck::cast_slice(map),
        }
    }

    /// The elements as `T`.
    pub(crate) fn of_mut<T: Pod>(&mut self) -> &mut [T] {
        match &mut self.0 {
            Memory::Heap(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Mapped(map) => bytemuck::cast_slice_mut(map),
        }
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
        let fits = |lines: &Lines| lines.len() >= bytes;
        // Of those of one size the last that came back, which the caches still hold.
        let smallest = pool
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, lines)| fits(lines))
            .min_by_key(|(_, lines)| lines.len());
        let found = smallest.map(|(index, _)| index);
        // A buffer that is too small is given up rather than kept beside the larger one.
        let taken = if let Some(index) = found { Some(pool.remove(index)) } else { pool.pop() };
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
        if lines.len() < bytes {
            *lines = Lines::zeroed(bytes);
        }
        f(lines)
    })
}
