//! The tiers of x86-64: rows by a few vectors, all sums in registers.
//!
//! Explicit vectors, because arrays of f32 do not stay in registers over the loop.
//!
//! # Limits
//! A step of `k` is 24 (12) multiply-adds of 512 (256) bits over 11 (8) loads, so the two multiply-add units are the
//! limit: from operands in the first two caches a tile reaches 217 of 243 GFLOP/s with AVX-512 and 123 of 125 with
//! AVX2 (Intel Xeon, family 6, model 167). Rows that come from memory (10 to 20 GB/s here) are asked for a slab ahead.

use super::vector::{Block, load_row, store_row};

/// Steps of `k` that are written out, so that counting costs nothing.
const TURN: usize = 4;

/// Rows of `b` between one that is read and one that is asked for: some 100 ns of work.
const EARLY: usize = 32;

/// How a tile reads its operands.
mod reading {
    /// Rows of `a`, and a panel whose rows stand one after another.
    pub(super) const PANEL: u8 = 0;
    /// Rows of `a`, and rows of `b` with a stride.
    pub(super) const STRIDED: u8 = 1;
    /// Columns of `a`, and rows of `b` with a stride.
    pub(super) const COLUMNS: u8 = 2;
    /// As `STRIDED`, with `b` in memory rather than in the caches: rows of it are asked for early.
    pub(super) const FAR: u8 = 3;
}

/// Defines the module of one tier: its tile of `ROWS` by `VECTORS` vectors of `LANES`, and the kernels.
macro_rules! tier {
    (
        $tier:ident, $features:literal, lanes $lanes:literal, rows $rows:literal in $($count:literal)*,
        vectors $vectors:literal in $($wide:literal)*,
        $zero:ident $load:ident $spread:ident $multiply_add:ident $store:ident
    ) => {
        pub(in super::super) mod $tier {
            use std::arch::x86_64::{
                _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, $load, $multiply_add, $spread, $store, $zero,
            };

            use super::{Block, EARLY, TURN, load_row, reading, store_row};

            pub(in super::super) const ROWS: usize = $rows;
            pub(in super::super) const LANES: usize = $lanes;
            pub(in super::super) const COLS: usize = $vectors * LANES;

            /// See `Kernel`: a packed panel.
            pub(in super::super) unsafe fn panel(b: Block) {
                // SAFETY: the caller keeps the contract of `Kernel`.
                unsafe { by_rows::<{ reading::PANEL }>(b) }
            }

            /// See `Kernel`: `b` has a stride.
            pub(in super::super) unsafe fn strided(b: Block) {
                // SAFETY: the caller keeps the contract of `Kernel`.
                unsafe { by_rows::<{ reading::STRIDED }>(b) }
            }

            /// See `Kernel`: `b` has a stride and is in memory.
            pub(in super::super) unsafe fn far(b: Block) {
                // SAFETY: the caller keeps the contract of `Kernel`.
                unsafe { by_rows::<{ reading::FAR }>(b) }
            }

            /// See `Kernel`: `b` has a stride, and `a` is read by columns.
            pub(in super::super) unsafe fn columns(b: Block) {
                // SAFETY: the caller keeps the contract of `Kernel`.
                unsafe { by_rows::<{ reading::COLUMNS }>(b) }
            }

            /// Cuts the rows into the few counts that there are tiles for.
            unsafe fn by_rows<const READING: u8>(b: Block) {
                if !b.cols.is_multiple_of(LANES) {
                    // SAFETY: the caller keeps the contract of `Kernel`.
                    return unsafe { through_whole::<READING>(b) };
                }
                let mut from = 0;
                while from < b.rows {
                    let next_row = if READING == reading::COLUMNS { 1 } else { b.lda };
                    let rest = Block {
                        a: b.a.wrapping_add(from * next_row),
                        c: b.c.wrapping_add(from * b.ldc),
                        ..b
                    };
                    // SAFETY: the caller keeps the contract of `Kernel`, also for a part of the rows.
                    from += unsafe {
                        match b.rows - from {
                            $($count.. => {
                                by_vectors::<$count, READING>(rest);
                                $count
                            })*
                            _ => unreachable!("there are rows left"),
                        }
                    };
                }
            }

            /// Computes vectors of which only some columns are in `c`, on a tile that stands for it.
            unsafe fn through_whole<const READING: u8>(b: Block) {
                let mut tile = [0.0f32; ROWS * COLS];
                let whole = Block {
                    cols: b.cols.next_multiple_of(LANES),
                    c: tile.as_mut_ptr(),
                    ldc: COLS,
                    ..b
                };
                // SAFETY: rows of `c` may be read, if they are added to, and written at `cols` elements.
                unsafe {
                    for (i, row) in tile.chunks_exact_mut(COLS).enumerate().take(if b.add { b.rows } else { 0 }) {
                        load_row(row, b.cols, b.c.add(i * b.ldc));
                    }
                    by_rows::<READING>(whole);
                    for (i, row) in tile.chunks_exact(COLS).enumerate().take(b.rows) {
                        store_row(row, b.cols, b.c.add(i * b.ldc));
                    }
                }
            }

            #[inline(always)]
            unsafe fn by_vectors<const R: usize, const READING: u8>(b: Block) {
                match b.cols / LANES {
                    // SAFETY: the caller keeps the contract of `Kernel`.
                    $($wide => unsafe { tile::<R, $wide, READING>(b) },)*
                    vectors => unreachable!("a tile of {vectors} vectors"),
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize, const N: usize, const READING: u8>(b: Block) {
                let ldb = if READING == reading::PANEL { N * LANES } else { b.ldb };
                let (next_row, next) = if READING == reading::COLUMNS { (1, b.lda) } else { (b.lda, 1) };
                let mut acc = [[$zero(); N]; R];
                if b.add {
                    for (i, acc) in acc.iter_mut().enumerate() {
                        for (v, acc) in acc.iter_mut().enumerate() {
                            // SAFETY: row `i` of `c` may be read at `N` vectors.
                            *acc = unsafe { $load(b.c.add(i * b.ldc + v * LANES)) };
                        }
                    }
                }
                let (mut a, mut panel, mut ahead) = (b.a, b.b, b.ahead);
                macro_rules! step {
                    ($p:expr) => {
                        if READING == reading::FAR {
                            let row = panel.wrapping_add(($p + EARLY) * ldb);
                            for line in 0..(N * LANES).div_ceil(16) {
                                _mm_prefetch::<_MM_HINT_T1>(row.wrapping_add(line * 16).cast());
                            }
                        }
                        // SAFETY: `b` holds `k` rows of whole vectors and `a` holds `R` rows of `k`.
                        unsafe {
                            let mut y = [$zero(); N];
                            for (v, y) in y.iter_mut().enumerate() {
                                *y = $load(panel.add($p * ldb + v * LANES));
                            }
                            for (i, acc) in acc.iter_mut().enumerate() {
                                let x = $spread(*a.add(i * next_row + $p * next));
                                for (acc, y) in acc.iter_mut().zip(y) {
                                    *acc = $multiply_add(x, y, *acc);
                                }
                            }
                        }
                    };
                }
                macro_rules! turn {
                    () => {
                        if READING == reading::PANEL {
                            _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                            _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(b.lda).cast());
                            ahead = ahead.wrapping_add(TURN);
                        }
                        step!(0);
                        step!(1);
                        step!(2);
                        step!(3);
                        a = a.wrapping_add(TURN * next);
                        panel = panel.wrapping_add(TURN * ldb);
                    };
                }
                let turns = b.k / TURN;
                // What is there for the next panel's sums to start at.
                let with_c = if READING == reading::PANEL && b.add { turns.min(R) } else { 0 };
                for i in 0..with_c {
                    let c = b.c.wrapping_add(i * b.ldc + N * LANES);
                    for line in 0..(N * LANES).div_ceil(16) {
                        _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(line * 16).cast());
                    }
                    turn!();
                }
                for _ in with_c..turns {
                    turn!();
                }
                for _ in 0..b.k % TURN {
                    step!(0);
                    a = a.wrapping_add(next);
                    panel = panel.wrapping_add(ldb);
                }
                for (i, acc) in acc.iter().enumerate() {
                    for (v, acc) in acc.iter().enumerate() {
                        // SAFETY: row `i` of `c` may be written at `N` vectors.
                        unsafe { $store(b.c.add(i * b.ldc + v * LANES), *acc) };
                    }
                }
            }
        }
    };
}

tier!(avx512, "avx512f", lanes 16, rows 8 in 8 4 2 1, vectors 3 in 1 2 3,
    _mm512_setzero_ps _mm512_loadu_ps _mm512_set1_ps _mm512_fmadd_ps _mm512_storeu_ps);
// Of 16 registers one is left: with 4 by 3 the compiler moves sums to memory.
tier!(avx2, "avx2,fma", lanes 8, rows 6 in 6 4 2 1, vectors 2 in 1 2,
    _mm256_setzero_ps _mm256_loadu_ps _mm256_set1_ps _mm256_fmadd_ps _mm256_storeu_ps);
