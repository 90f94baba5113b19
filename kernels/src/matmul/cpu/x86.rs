//! The tiers of x86-64: rows by two vectors, all sums in registers.
//!
//! Explicit vectors, because arrays of f32 do not stay in registers over the loop.

use super::vector::{Block, load_row, store_row};

/// Defines the module of one tier: its tile of `ROWS` by two vectors of `LANES`, and the kernel `block`.
macro_rules! tier {
    (
        $tier:ident, $features:literal, rows $rows:literal, lanes $lanes:literal, by $($count:literal)*,
        $zero:ident $load:ident $spread:ident $multiply_add:ident $store:ident
    ) => {
        pub(in super::super) mod $tier {
            use std::arch::x86_64::{$load, $multiply_add, $spread, $store, $zero};

            use super::{Block, load_row, store_row};

            pub(in super::super) const ROWS: usize = $rows;
            const LANES: usize = $lanes;
            pub(in super::super) const COLS: usize = 2 * LANES;

            /// See `Kernel`.
            pub(in super::super) unsafe fn block(b: Block) {
                match b.rows {
                    // SAFETY: the caller keeps the contract of `Kernel`.
                    $($count => unsafe { tile::<$count>(b) },)*
                    rows => unreachable!("a tile of {rows} rows"),
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize>(b: Block) {
                let mut acc = [[$zero(); 2]; R];
                let mut row = [0.0f32; COLS];
                let whole = b.cols == COLS;
                if b.add {
                    // Over all rows: a loop of unknown length would keep the sums in memory.
                    for (i, acc) in acc.iter_mut().enumerate() {
                        // SAFETY: row `i` of `c` may be read at `cols` elements; `row` holds two vectors.
                        unsafe {
                            let c = b.c.add(i * b.ldc);
                            if !whole {
                                load_row(&mut row, b.cols, c);
                            }
                            let from = if whole { c.cast_const() } else { row.as_ptr() };
                            *acc = [$load(from), $load(from.add(LANES))];
                        }
                    }
                }
                for p in 0..b.k {
                    // SAFETY: the panel holds `k * COLS` elements and `a` holds `R` rows of `k`.
                    unsafe {
                        let y = [$load(b.panel.add(p * COLS)), $load(b.panel.add(p * COLS + LANES))];
                        for (i, acc) in acc.iter_mut().enumerate() {
                            let x = $spread(*b.a.add(i * b.lda + p));
                            acc[0] = $multiply_add(x, y[0], acc[0]);
                            acc[1] = $multiply_add(x, y[1], acc[1]);
                        }
                    }
                }
                for (i, acc) in acc.iter().enumerate() {
                    // SAFETY: `row` holds two vectors; row `i` of `c` may be written at `cols` elements.
                    unsafe {
                        let c = b.c.add(i * b.ldc);
                        let to = if whole { c } else { row.as_mut_ptr() };
                        $store(to, acc[0]);
                        $store(to.add(LANES), acc[1]);
                        if !whole {
                            store_row(&row, b.cols, c);
                        }
                    }
                }
            }
        }
    };
}

tier!(avx512, "avx512f", rows 14, lanes 16, by 1 2 3 4 5 6 7 8 9 10 11 12 13 14,
    _mm512_setzero_ps _mm512_loadu_ps _mm512_set1_ps _mm512_fmadd_ps _mm512_storeu_ps);
tier!(avx2, "avx2,fma", rows 6, lanes 8, by 1 2 3 4 5 6,
    _mm256_setzero_ps _mm256_loadu_ps _mm256_set1_ps _mm256_fmadd_ps _mm256_storeu_ps);
