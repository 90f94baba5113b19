//! The unit of f32 vectors: panels of f32, rows read where they are.

use std::borrow::Cow;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::x86;
use rayon::prelude::*;

use super::{Operand, SharedOut, Unit, View, ViewMut, portable};
use crate::frozen::{Compute, round_to_bf16};
use crate::isa::Tier;

/// Computes `rows x cols` of `c` from `rows` rows of `a` and a packed panel of `k` rows, each `cols` rounded up to
/// whole vectors.
///
/// # Safety
/// `a` holds `rows` rows of `k` elements, `lda` apart; `b` holds the panel; `c` may be written, and read to add, at
/// `rows` rows of `cols` elements, `ldc` apart; the tier's instructions exist on this machine. A kernel for
/// operands with strides reads rows of `b` that are `ldb` apart, and `a` as its name says.
type Kernel = unsafe fn(Block);

/// The arguments of one inner kernel call.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub rows: usize,
    pub cols: usize,
    pub k: usize,
    pub a: *const f32,
    pub lda: usize,
    pub b: *const f32,
    pub ldb: usize,
    pub c: *mut f32,
    pub ldc: usize,
    pub add: bool,
    /// Two rows of `a`, `lda` apart, that a later call wants: never read, whatever it is.
    pub ahead: *const f32,
}

/// Products in f32 with the vectors of a tier.
#[derive(Clone, Copy)]
pub(crate) struct VectorUnit {
    kernel: Kernel,
    /// For a right operand with a stride that comes from memory, where the tier has one.
    far: Option<Kernel>,
    rows: usize,
    columns: usize,
    lanes: usize,
    panel_bytes: usize,
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
        // Processors with AVX-512 have second-level caches of a megabyte and more.
        match tier {
            #[cfg(target_arch = "x86_64")]
            Tier::Amx | Tier::Avx512 => Self {
                kernel: x86::avx512::panel,
                far: Some(x86::avx512::far),
                rows: x86::avx512::ROWS,
                columns: x86::avx512::COLS,
                lanes: x86::avx512::LANES,
                panel_bytes: 1 << 20,
                compute,
            },
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => Self {
                kernel: x86::avx2::panel,
                far: Some(x86::avx2::far),
                rows: x86::avx2::ROWS,
                columns: x86::avx2::COLS,
                lanes: x86::avx2::LANES,
                panel_bytes: 512 << 10,
                compute,
            },
            _ => Self {
                kernel: portable::panel,
                far: None,
                rows: portable::ROWS,
                columns: portable::COLS,
                lanes: portable::COLS,
                panel_bytes: 512 << 10,
                compute,
            },
        }
    }

    /// The row length of a panel of up to [`Unit::panel_columns`] columns.
    fn width(self, columns: usize) -> usize {
        columns.min(self.columns).next_multiple_of(self.lanes)
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

    fn depth_most(self) -> usize {
        // The sums of a whole chain stay in registers; a slab and a panel both stream from the second-level cache,
        // which keeps up.
        1664
    }

    fn task_bytes(self) -> usize {
        self.panel_bytes
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
            let (cols, width) = (self.columns.min(columns.end - j), self.width(columns.end - j));
            right.pack(depth.clone(), j, cols, width, &mut panel[..depth.len() * width]);
        }
    }

    fn few_rows(self, m: usize, n: usize, k: usize, left: &Rows, right: View, c: &mut ViewMut) -> bool {
        // Rows of `right` that stay in the second-level cache while all panels take their columns.
        const DEPTH: usize = 64;
        let Some(kernel) = self.far else { return false };
        if !n.is_multiple_of(self.lanes) || m == 0 || n == 0 || k == 0 {
            return false;
        }
        assert!(left.data.len() >= (m - 1) * left.stride + k, "the left operand is too short");
        assert!(right.data.len() >= (k - 1) * right.stride + n, "the right operand is too short");
        assert!(c.data.len() >= (m - 1) * c.stride + n, "the output is too short");
        let (out, ldc) = (SharedOut::new(c.data.as_mut_ptr()), c.stride);
        let threads = rayon::current_num_threads();
        let tasks = if threads > 1 { 4 * threads } else { 1 };
        let stretch = n.div_ceil(self.columns).div_ceil(tasks) * self.columns;
        (0..n.div_ceil(stretch)).into_par_iter().for_each(|task| {
            let columns = task * stretch..n.min((task + 1) * stretch);
            for p in (0..k).step_by(DEPTH) {
                for j in columns.clone().step_by(self.columns) {
                    for i in (0..m).step_by(self.rows) {
                        let block = Block {
                            rows: self.rows.min(m - i),
                            cols: self.columns.min(columns.end - j),
                            k: DEPTH.min(k - p),
                            a: left.data[i * left.stride + p..].as_ptr(),
                            lda: left.stride,
                            b: right.data[p * right.stride + j..].as_ptr(),
                            ldb: right.stride,
                            c: out.at(i * ldc + j),
                            ldc,
                            add: p > 0,
                            ahead: std::ptr::null(),
                        };
                        // SAFETY: the lengths were checked, whole vectors lie in the `n` columns, tasks have
                        // columns of their own, and `new` checked the tier.
                        unsafe { kernel(block) };
                    }
                }
            }
        });
        true
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
                let a = left.data[rows.start * left.stride + depth.start..].as_ptr();
                // Each panel asks for two rows of the next slab.
                let ahead = a.wrapping_add((self.rows + 2 * index % self.rows) * left.stride);
                let block = Block {
                    rows: rows.len(),
                    cols: self.columns.min(columns - j),
                    k: depth.len(),
                    a,
                    lda: left.stride,
                    b: panels[index * self.panel_bytes(depth.len())..].as_ptr().cast(),
                    ldb: 0,
                    c: c.wrapping_add(j),
                    ldc,
                    add,
                    ahead,
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
