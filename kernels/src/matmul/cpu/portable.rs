//! The tier for any machine: plain Rust that the compiler vectorises for the target's baseline.

use super::vector::{Block, load_row, store_row};

pub(super) const ROWS: usize = 4;
pub(super) const COLS: usize = 8;

/// See [`super::vector::Kernel`].
pub(super) unsafe fn panel(b: Block) {
    let mut acc = [[0.0f32; COLS]; ROWS];
    for (i, acc) in acc.iter_mut().enumerate().take(if b.add { b.rows } else { 0 }) {
        // SAFETY: row `i` of `c` may be read at `cols` elements.
        unsafe { load_row(acc, b.cols, b.c.add(i * b.ldc)) };
    }
    for p in 0..b.k {
        // SAFETY: the panel holds `k * COLS` elements.
        let row = unsafe { std::slice::from_raw_parts(b.b.add(p * COLS), COLS) };
        for (i, acc) in acc.iter_mut().enumerate().take(b.rows) {
            // SAFETY: `a` holds `rows` rows of `k` elements.
            let x = unsafe { *b.a.add(i * b.lda + p) };
            for (sum, y) in acc.iter_mut().zip(row) {
                *sum += x * y;
            }
        }
    }
    for (i, acc) in acc.iter().enumerate().take(b.rows) {
        // SAFETY: row `i` of `c` may be written at `cols` elements.
        unsafe { store_row(acc, b.cols, b.c.add(i * b.ldc)) };
    }
}
