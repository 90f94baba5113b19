//! The `avx2` tier: 6 rows by two vectors of 8 lanes, all sums in registers.

use std::arch::x86_64::{
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::{Block, load_row, store_row};

pub(super) const ROWS: usize = 6;
const LANES: usize = 8;
pub(super) const COLS: usize = 2 * LANES;

/// See [`super::Kernel`].
pub(super) unsafe fn block(b: Block) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match b.rows {
                // SAFETY: the caller keeps the contract of `super::Kernel`.
                $($rows => unsafe { tile::<$rows>(b) },)*
                rows => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const R: usize>(b: Block) {
    let mut acc = [[_mm256_setzero_ps(); 2]; R];
    let mut row = [0.0f32; COLS];
    if b.add {
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: row `i` of `c` may be read at `cols` elements; `row` holds two vectors.
            unsafe {
                let c = b.c.add(i * b.ldc);
                if b.cols < COLS {
                    load_row(&mut row, b.cols, c);
                }
                let from = if b.cols < COLS { row.as_ptr() } else { c.cast_const() };
                *acc = [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(LANES))];
            }
        }
    }
    for p in 0..b.k {
        // SAFETY: the panel holds `k * COLS` elements and `a` holds `R` rows of `k`.
        unsafe {
            let y = [_mm256_loadu_ps(b.panel.add(p * COLS)), _mm256_loadu_ps(b.panel.add(p * COLS + LANES))];
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*b.a.add(i * b.lda + p));
                acc[0] = _mm256_fmadd_ps(x, y[0], acc[0]);
                acc[1] = _mm256_fmadd_ps(x, y[1], acc[1]);
            }
        }
    }
    for (i, acc) in acc.iter().enumerate() {
        // SAFETY: `row` holds two vectors; row `i` of `c` may be written at `cols` elements.
        unsafe {
            let c = b.c.add(i * b.ldc);
            let to = if b.cols < COLS { row.as_mut_ptr() } else { c };
            _mm256_storeu_ps(to, acc[0]);
            _mm256_storeu_ps(to.add(LANES), acc[1]);
            if b.cols < COLS {
                store_row(&row, b.cols, c);
            }
        }
    }
}
