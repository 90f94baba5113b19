//! The unit of f32 vectors: panels of f32, rows read where they are.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{Lines, Operand, Unit, View, portable};
use crate::isa::Tier;

/// Computes `rows x width` of `c` from `rows` rows of `a` and a packed `[k][width]` panel.
///
/// # Safety
/// `a` holds `rows` rows of `k` elements, `lda` apart; `panel` holds `k * width`; `c` may be written at
/// `rows` rows of `cols` elements, `ldc` apart; the tier's instructions exist on this machine.
type Kernel = unsafe fn(Block);

/// The arguments of one inner kernel call.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub rows: usize,
    pub cols: usize,
    pub k: usize,
    pub a: *const f32,
    pub lda: usize,
    pub panel: *const f32,
    pub c: *mut f32,
    pub ldc: usize,
    pub add: bool,
}

/// Products in f32 with the vectors of a tier.
#[derive(Clone, Copy)]
pub(crate) struct VectorUnit {
    kernel: Kernel,
    rows: usize,
    columns: usize,
}

impl VectorUnit {
    /// The unit of a tier.
    pub(crate) fn new(tier: Tier) -> Self {
        assert!(tier.is_available(), "tier `{}` asked for without a check", tier.name());
        match tier {
            #[cfg(target_arch = "x86_64")]
            Tier::Amx | Tier::Avx512 => {
                Self { kernel: x86::avx512::block, rows: x86::avx512::ROWS, columns: x86::avx512::COLS }
            }
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => Self { kernel: x86::avx2::block, rows: x86::avx2::ROWS, columns: x86::avx2::COLS },
            _ => Self { kernel: portable::block, rows: portable::ROWS, columns: portable::COLS },
        }
    }
}

impl Unit for VectorUnit {
    type Left<'a> = View<'a>;
    type Session = ();

    fn slab_rows(self) -> usize {
        self.rows
    }

    fn panel_columns(self) -> usize {
        self.columns
    }

    fn depth_grain(self) -> usize {
        1
    }

    fn panel_bytes(self, depth: usize) -> usize {
        depth * self.columns * size_of::<f32>()
    }

    fn left<'a>(self, m: usize, k: usize, rows: View<'a>) -> View<'a> {
        assert!(m == 0 || rows.data.len() >= (m - 1) * rows.stride + k, "the left operand is too short");
        rows
    }

    fn begin(self) {}

    fn pack(self, right: &Operand, depth: Range<usize>, columns: Range<usize>, panels: &mut Lines) {
        let size = depth.len() * self.columns;
        let panels = panels.of_mut::<f32>().chunks_exact_mut(size.max(1));
        for (j, panel) in columns.clone().step_by(self.columns).zip(panels) {
            right.pack(depth.clone(), j, self.columns.min(columns.end - j), self.columns, panel);
        }
    }

    unsafe fn slab(
        self,
        (): &(),
        left: &View<'_>,
        rows: Range<usize>,
        depth: Range<usize>,
        panels: &Lines,
        columns: usize,
        c: *mut f32,
        ldc: usize,
        add: bool,
    ) {
        let a = left.data[rows.start * left.stride + depth.start..].as_ptr();
        let panels = panels.of::<f32>().chunks_exact(depth.len() * self.columns);
        for (j, panel) in (0..columns).step_by(self.columns).zip(panels) {
            let block = Block {
                rows: rows.len(),
                cols: self.columns.min(columns - j),
                k: depth.len(),
                a,
                lda: left.stride,
                panel: panel.as_ptr(),
                c: c.wrapping_add(j),
                ldc,
                add,
            };
            // SAFETY: the caller vouches for the sizes; `new` checked the tier.
            unsafe { (self.kernel)(block) };
        }
    }
}

/// Reads a row of a block from `c`.
///
/// # Safety
/// `c` may be read at `cols` elements.
#[inline(always)]
pub(super) unsafe fn load_row(values: &mut [f32], cols: usize, c: *const f32) {
    // SAFETY: the caller vouches for `cols` elements.
    values[..cols].copy_from_slice(unsafe { std::slice::from_raw_parts(c, cols) });
}

/// Writes a finished row of a block.
///
/// # Safety
/// `c` may be written at `cols` elements.
#[inline(always)]
pub(super) unsafe fn store_row(values: &[f32], cols: usize, c: *mut f32) {
    // SAFETY: the caller vouches for `cols` elements, which no other thread touches.
    unsafe { std::slice::from_raw_parts_mut(c, cols) }.copy_from_slice(&values[..cols]);
}
