//! The unit of f32 vectors: panels of f32, rows read where they are.

use std::borrow::Cow;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::x86;
use rayon::prelude::*;

use super::{Operand, Unit, View, portable};
use crate::frozen::{Compute, round_to_bf16};
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
    /// [`Compute::Bf16`] rounds left operands; frozen weights round themselves when they are read.
    compute: Compute,
}

/// A left operand: rows of f32, where they are or rounded.
pub(crate) struct Rows<'a> {
    data: Cow<'a, [f32]>,
    stride: usize,
}

impl VectorUnit {
    /// The unit of a tier.
    pub(crate) fn new(tier: Tier, compute: Compute) -> Self {
        assert!(tier.is_available(), "tier `{}` asked for without a check", tier.name());
        let (kernel, rows, columns): (Kernel, _, _) = match tier {
            #[cfg(target_arch = "x86_64")]
            Tier::Amx | Tier::Avx512 => (x86::avx512::block, x86::avx512::ROWS, x86::avx512::COLS),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => (x86::avx2::block, x86::avx2::ROWS, x86::avx2::COLS),
            _ => (portable::block, portable::ROWS, portable::COLS),
        };
        Self { kernel, rows, columns, compute }
    }
}

impl Unit for VectorUnit {
    type Left<'a> = Rows<'a>;
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
        (depth * self.columns * size_of::<f32>()).next_multiple_of(64)
    }

    fn left(self, m: usize, k: usize, rows: View<'_>) -> Rows<'_> {
        assert!(m == 0 || rows.data.len() >= (m - 1) * rows.stride + k, "the left operand is too short");
        let data = match self.compute {
            Compute::F32 => Cow::Borrowed(rows.data),
            Compute::Bf16 => {
                let mut rounded = rows.data.to_vec();
                rounded.par_chunks_mut(1 << 14).for_each(round_to_bf16);
                Cow::Owned(rounded)
            }
        };
        Rows { data, stride: rows.stride }
    }

    fn begin(self) {}

    fn pack(self, right: &Operand, depth: Range<usize>, columns: Range<usize>, panels: &mut [u8]) {
        let panels = bytemuck::cast_slice_mut(panels).chunks_exact_mut(self.panel_bytes(depth.len()) / 4);
        for (j, panel) in columns.clone().step_by(self.columns).zip(panels) {
            let panel = &mut panel[..depth.len() * self.columns];
            right.pack(depth.clone(), j, self.columns.min(columns.end - j), self.columns, panel);
        }
    }

    unsafe fn slab<'p, 'l: 'p>(
        self,
        (): &(),
        cuts: impl Iterator<Item = (&'p Rows<'l>, Range<usize>, &'p [u8])> + Clone,
        rows: Range<usize>,
        columns: usize,
        c: *mut f32,
        ldc: usize,
        add: bool,
    ) {
        for (index, j) in (0..columns).step_by(self.columns).enumerate() {
            let mut add = add;
            for (left, depth, panels) in cuts.clone() {
                let block = Block {
                    rows: rows.len(),
                    cols: self.columns.min(columns - j),
                    k: depth.len(),
                    a: left.data[rows.start * left.stride + depth.start..].as_ptr(),
                    lda: left.stride,
                    panel: panels[index * self.panel_bytes(depth.len())..].as_ptr().cast(),
                    c: c.wrapping_add(j),
                    ldc,
                    add,
                };
                // SAFETY: the caller vouches for the sizes; `new` checked the tier.
                unsafe { (self.kernel)(block) };
                add = true;
            }
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
