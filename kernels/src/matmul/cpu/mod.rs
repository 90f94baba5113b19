//! The product on the CPU: one driver, and a unit for each way of multiplying a block.

#![expect(
    unsafe_code,
    reason = "blocks of one output are written by several threads, with vector instructions"
)]

mod portable;
mod product;
mod rows;
mod scratch;
mod small;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use product::{Output, Segment, Start, product};
#[cfg(target_arch = "x86_64")]
pub(crate) use scratch::Pooled;
pub(crate) use small::{Left, small_product};
#[cfg(target_arch = "x86_64")]
pub(crate) use tiles::TileUnit;
pub(crate) use vector::VectorUnit;

use std::ops::Range;

use super::{Mode, Operand, View, ViewMut};
use crate::frozen::Compute;
use crate::isa::Tier;

/// An output that tasks write at disjoint places.
#[derive(Clone, Copy)]
pub(crate) struct SharedOut(*mut f32);
// SAFETY: every task writes its own rows and columns, so no element is shared between threads.
unsafe impl Send for SharedOut {}
// SAFETY: as above.
unsafe impl Sync for SharedOut {}

impl SharedOut {
    pub(crate) fn new(at: *mut f32) -> Self {
        Self(at)
    }

    pub(crate) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// One way of multiplying blocks: what it wants its operands packed as, and the innermost loops.
pub(crate) trait Unit: Copy + Send + Sync + 'static {
    /// A left operand as the unit reads it.
    type Left<'a>: Sync;
    /// What a thread holds while it multiplies.
    type Session;

    /// Rows of a slab: the rows that one [`Unit::slab`] call computes.
    fn slab_rows(self) -> usize;

    /// Columns of a panel of the right operand.
    fn panel_columns(self) -> usize;

    /// The multiple that cuts of `k` lie on.
    fn depth_grain(self) -> usize;

    /// The most of `k` that is packed at once.
    fn depth_most(self) -> usize;

    /// Bytes of packed columns that a task works with: about half of the second-level cache.
    fn task_bytes(self) -> usize;

    /// Bytes of one panel of `depth`; a multiple of a cache line.
    fn panel_bytes(self, depth: usize) -> usize;

    /// Prepares the rows of a left operand `[m, k]`, on all threads.
    fn left(self, m: usize, k: usize, rows: View<'_>) -> Self::Left<'_>;

    /// Gets the thread ready.
    fn begin(self) -> Self::Session;

    /// Packs columns `columns` of `right`, at `depth`, as panels one after another, from a cache line on.
    fn pack(self, right: &Operand, depth: Range<usize>, columns: Range<usize>, panels: &mut [u8]);

    /// Computes `c = left . right` of `[m, k]` and a dense `[k, n]` without packing `right`, where `m` is too small for
    /// that to pay. Returns whether the unit can; if not, `c` is as it was.
    fn few_rows(
        self,
        _m: usize,
        _n: usize,
        _k: usize,
        _left: &Self::Left<'_>,
        _right: View,
        _c: &mut ViewMut,
    ) -> bool {
        false
    }

    /// Multiplies rows `rows` of left operands with packed panels of `columns` columns, and sums over the cuts in
    /// their order: each cut is a left operand, a depth, and the panels of that depth.
    ///
    /// # Safety
    /// `rows` is at most [`Unit::slab_rows`] rows of each left operand and starts at a multiple of it; the
    /// panels were packed for their depth and at least these columns; there is a cut; `c` may be written, and
    /// read to add, at `rows x columns` elements, `ldc` apart.
    unsafe fn slab<'p, 'l: 'p>(
        self,
        session: &Self::Session,
        cuts: impl Iterator<Item = (&'p Self::Left<'l>, Range<usize>, &'p [u8])> + Clone,
        rows: Range<usize>,
        columns: usize,
        c: *mut f32,
        ldc: usize,
        add: bool,
    );
}

/// Rows of `a` up to which unpacking whole panels costs more than it saves.
pub(crate) const FEW_ROWS: usize = 2;

pub(super) fn matmul(tier: Tier, m: usize, n: usize, k: usize, a: View, b: &Operand, c: ViewMut, mode: Mode) {
    if m <= FEW_ROWS && b.has_rows() {
        return rows::matmul(tier, m, n, k, a, b, c, mode);
    }
    let unit = VectorUnit::new(tier, Compute::F32);
    let start = if mode == Mode::Add { Start::Kept } else { Start::Zero };
    let segments = [Segment { left: &unit.left(m, k, a), right: b }];
    product(unit, Output { m, n, c, start }, &segments);
}
