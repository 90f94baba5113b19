//! Tiles, threads and the choice of the inner kernel.

#![expect(
    unsafe_code,
    reason = "tiles of one output are written by several threads, with vector instructions"
)]

mod portable;
mod rows;
#[cfg(target_arch = "x86_64")]
mod x86;

use rayon::prelude::*;

use super::{Mode, Operand, View, ViewMut};
use crate::isa::Tier;

/// Computes `rows x width` of `c` from `rows` rows of `a` and a packed `[k][width]` panel.
///
/// # Safety
/// `a` holds `rows` rows of `k` elements, `lda` apart; `panel` holds `k * width`; `c` may be written at
/// `rows` rows of `cols` elements, `ldc` apart; the tier's instructions exist on this machine.
type Kernel = unsafe fn(Block);

/// The arguments of one inner kernel call.
#[derive(Clone, Copy)]
struct Block {
    rows: usize,
    cols: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    panel: *const f32,
    c: *mut f32,
    ldc: usize,
    add: bool,
}

/// An output that tasks write at disjoint places.
#[derive(Clone, Copy)]
struct SharedOut(*mut f32);
// SAFETY: every task writes its own rows and columns, so no element is shared between threads.
unsafe impl Send for SharedOut {}
// SAFETY: as above.
unsafe impl Sync for SharedOut {}

impl SharedOut {
    fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// Depth of a packed panel: with it a panel and a tile of `a` stay in the inner caches.
const DEPTH: usize = 512;

/// Rows of `a` one task takes: enough to pay for unpacking a panel, few enough to share the work.
const TASK_ROWS: usize = 1024;

/// Rows of `a` up to which unpacking whole panels costs more than it saves.
const FEW_ROWS: usize = 2;

pub(super) fn matmul(tier: Tier, m: usize, n: usize, k: usize, a: View, b: &Operand, c: ViewMut, mode: Mode) {
    if m <= FEW_ROWS && b.has_rows() {
        return rows::matmul(tier, m, n, k, a, b, c, mode);
    }
    let (kernel, tile_rows, width): (Kernel, usize, usize) = match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Amx | Tier::Avx512 => (x86::avx512::block, x86::avx512::ROWS, x86::avx512::COLS),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => (x86::avx2::block, x86::avx2::ROWS, x86::avx2::COLS),
        _ => (portable::block, portable::ROWS, portable::COLS),
    };
    let panels = n.div_ceil(width);
    // With few panels (a low-rank product) the rows are shared out instead.
    let task_rows = if panels >= 8 { TASK_ROWS } else { 64 };
    let chunks = m.div_ceil(task_rows);
    let ViewMut { data, stride: ldc } = c;
    let out = SharedOut(data.as_mut_ptr());
    (0..panels * chunks).into_par_iter().for_each_init(
        || vec![0.0f32; DEPTH.min(k) * width],
        |panel, task| {
            let (chunk, j) = (task / panels, (task % panels) * width);
            let cols = width.min(n - j);
            let rows = chunk * task_rows..m.min((chunk + 1) * task_rows);
            // Without products there is still an output to clear.
            for start in (0..k.max(1)).step_by(DEPTH) {
                let depth = start..k.min(start + DEPTH);
                b.pack(depth.clone(), j, cols, width, panel);
                for i in rows.clone().step_by(tile_rows) {
                    let block = Block {
                        rows: tile_rows.min(rows.end - i),
                        cols,
                        k: depth.len(),
                        a: a.data[(i * a.stride + start).min(a.data.len())..].as_ptr(),
                        lda: a.stride,
                        panel: panel.as_ptr(),
                        c: out.at(i * ldc + j),
                        ldc,
                        add: mode == Mode::Add || start > 0,
                    };
                    // SAFETY: `super::matmul` checked the lengths of `a` and `c`, the panel holds this depth
                    // and width, tasks do not overlap, and the tier is one that this machine has.
                    unsafe { kernel(block) };
                }
            }
        },
    );
}

/// Reads a tile row from `c`.
///
/// # Safety
/// `c` may be read at `cols` elements.
#[inline(always)]
unsafe fn load_row(values: &mut [f32], cols: usize, c: *const f32) {
    // SAFETY: the caller vouches for `cols` elements.
    values[..cols].copy_from_slice(unsafe { std::slice::from_raw_parts(c, cols) });
}

/// Writes a finished tile row.
///
/// # Safety
/// `c` may be written at `cols` elements.
#[inline(always)]
unsafe fn store_row(values: &[f32], cols: usize, c: *mut f32) {
    // SAFETY: the caller vouches for `cols` elements, which no other thread touches.
    unsafe { std::slice::from_raw_parts_mut(c, cols) }.copy_from_slice(&values[..cols]);
}
