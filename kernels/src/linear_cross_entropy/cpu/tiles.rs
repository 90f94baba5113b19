//! Blocks on the AMX unit: the head's rows packed once a block, then slabs of rows that stay in cache.
//!
//! A slab meets a block in four steps: logits (f32, in cache), their softmax, `exp` rounded to bf16 as left tiles,
//! and the sums. What moves through the outer caches is the slab's `h` and sums, once a block.

#![expect(unsafe_code, reason = "tiles and vector instructions, and operands that lie in one buffer")]

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T1, _mm_prefetch,
    _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_max_ps,
    _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_si512, _mm512_sub_ps,
};
use std::cell::RefCell;
use std::mem::transmute;
use std::ops::Range;

use rayon::prelude::*;

use super::super::sweep::BORDER;
use super::{Engine, Row};
use crate::amx::pack::{left, right_from_columns, right_from_rows};
use crate::amx::rows::{F32Rows, Rows, with_rows};
use crate::amx::{BLOCK, DEPTH, LANES, TILE, Tiles};
use crate::frozen::FrozenWeight;

/// Rows whose logits of one block are in cache at one time.
const SLAB: usize = BLOCK;

/// Largest `hidden` for which both packings of 512 rows of the head stay in a cache of 2 MiB.
const WIDE: usize = 1024;

/// Tiles of `k` that a product takes at a time: with them the slab's side (40 KiB) stays in the innermost cache
/// while the head's side streams past it.
const CHAIN: usize = 20;

/// A cache line: tiles and vectors are read from whole ones.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// Lines of a tile.
const TILE_LINES: usize = LANES;

fn lines(count: usize) -> Vec<Line> {
    vec![Line([0.0; LANES]); count]
}

thread_local! {
    /// Logits and `exp` of a slab: kept, since there is one of each a block and slab.
    static SCRATCH: RefCell<[Vec<Line>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

pub(super) struct Tiled {
    gradient: bool,
    /// Rows of the head in a block, a multiple of 32.
    width: usize,
    /// Tiles along `hidden`.
    k_tiles: usize,
    /// Left tiles `[rows / 16][k_tiles]`.
    h: Vec<Line>,
    /// A block of the head as right tiles `[width / 16][k_tiles]`, for the logits.
    columns: Vec<Line>,
    /// The same as right tiles `[hidden / 16][width / 32]`, for the sums.
    by_row: Vec<Line>,
    /// `[rows][sums_stride]` f32.
    sums: Vec<Line>,
}

/// Rows of `h` that have a target, as if there were no others.
struct Gathered<'a> {
    h: F32Rows<'a>,
    rows: &'a [Row],
}

impl Rows for Gathered<'_> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, col: usize) -> __m512i {
        // SAFETY: as the caller vouches; a row's token lies in `h`.
        unsafe { self.h.load(self.rows[row].token, col) }
    }
}

/// A block of the head: some rows of those at hand, of which row 0 is row `first` of the whole.
struct Stretch {
    rows: Range<usize>,
    first: usize,
}

impl Tiled {
    /// # Panics
    /// Where there are no tiles, or `hidden` is 0.
    pub(super) fn new(h: &[f32], hidden: usize, rows: &[Row], gradient: bool) -> Self {
        assert!(crate::amx::available() && hidden > 0, "tiles asked for without a check");
        let width = if hidden <= WIDE { BORDER } else { BORDER / 2 };
        let (k_tiles, padded) = (hidden.div_ceil(DEPTH), rows.len().next_multiple_of(BLOCK));
        let mut tiles = lines(padded / LANES * k_tiles * TILE_LINES);
        let gathered = Gathered { h: F32Rows { data: h, stride: hidden, width: hidden }, rows };
        tiles.par_chunks_exact_mut(k_tiles * TILE_LINES).enumerate().for_each(|(group, out)| {
            // SAFETY: `available` found the instructions, and `out` holds `k_tiles` tiles.
            unsafe { left(&gathered, group * LANES, rows.len(), 0, k_tiles, out.as_mut_ptr().cast()) };
        });
        let side = width / LANES * k_tiles * TILE_LINES;
        let (by_row, sums) = if gradient { (side, padded * (2 * k_tiles + 1)) } else { (0, 0) };
        Self {
            gradient,
            width,
            k_tiles,
            h: tiles,
            columns: lines(side),
            by_row: lines(by_row),
            sums: lines(sums),
        }
    }

    /// Lines between two rows of the sums, 0 without a gradient: odd, so that the rows of a tile lie in different
    /// sets of the cache.
    fn sums_lines(&self) -> usize {
        if self.gradient { 2 * self.k_tiles + 1 } else { 0 }
    }

    /// Packs a block of the head both ways.
    fn pack<R: Rows + Sync>(&mut self, weight: &R, block: &Range<usize>) {
        let (k_tiles, v_tiles) = (self.k_tiles, block.len().div_ceil(DEPTH));
        let end = block.end;
        let columns = &mut self.columns[..2 * v_tiles * k_tiles * TILE_LINES];
        columns.par_chunks_exact_mut(k_tiles * TILE_LINES).enumerate().for_each(|(group, out)| {
            let (row, out) = (block.start + group * LANES, out.as_mut_ptr().cast());
            // SAFETY: `new` found the instructions; rows from `end` on are not read; `out` holds `k_tiles` tiles.
            unsafe { right_from_columns(weight, row, end, 0, k_tiles, out) };
        });
        if self.gradient {
            let by_row = &mut self.by_row[..2 * v_tiles * k_tiles * TILE_LINES];
            by_row.par_chunks_exact_mut(2 * v_tiles * TILE_LINES).enumerate().for_each(|(group, out)| {
                let (first, second) = out.split_at_mut(v_tiles * TILE_LINES);
                let out = [first.as_mut_ptr().cast(), second.as_mut_ptr().cast()];
                // SAFETY: as above; each half holds `v_tiles` tiles.
                unsafe { right_from_rows(weight, block.start, end, group * DEPTH, v_tiles, out) };
            });
        }
    }

    /// Takes a packed block into a slab of at most [`SLAB`] rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn slab(&self, tiles: &Tiles, block: &Stretch, rows: &mut [Row], h: &[Line], sums: &mut [Line]) {
        let (k_tiles, v_tiles) = (self.k_tiles, block.rows.len().div_ceil(DEPTH));
        let stride = v_tiles * DEPTH + LANES;
        assert!(h.len() == 2 * k_tiles * TILE_LINES, "a slab without its rows");
        assert!(sums.len() == self.sums_lines() * SLAB, "a slab without its sums");
        SCRATCH.with_borrow_mut(|[logits, e]| {
            logits.resize(logits.len().max(SLAB * stride / LANES), Line([0.0; LANES]));
            e.resize(e.len().max(2 * v_tiles * TILE_LINES), Line([0.0; LANES]));
            let product_logits = Product {
                a: h.as_ptr().cast(),
                b: self.columns.as_ptr().cast(),
                columns: v_tiles,
                k_tiles,
                c: logits.as_mut_ptr().cast(),
                ldc: stride,
                add: false,
                next: sums,
            };
            // SAFETY: `h` was checked, `pack` filled the columns of this block, the scratch was made to fit.
            unsafe { product(tiles, product_logits) };
            self.softmax(block, rows, bytemuck::cast_slice_mut(logits), e, sums);
            if self.gradient {
                let product_sums = Product {
                    a: e.as_ptr().cast(),
                    b: self.by_row.as_ptr().cast(),
                    columns: k_tiles,
                    k_tiles: v_tiles,
                    c: sums.as_mut_ptr().cast(),
                    ldc: self.sums_lines() * LANES,
                    add: true,
                    next: &[],
                };
                // SAFETY: `sums` was checked, `pack` filled the rows of this block, the scratch was made to fit.
                unsafe { product(tiles, product_sums) };
            }
        });
    }

    /// Turns a slab's logits into `e`, left tiles `[2][block / 32]`, and scales its sums where a maximum rose.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn softmax(
        &self,
        block: &Stretch,
        rows: &mut [Row],
        logits: &mut [f32],
        e: &mut [Line],
        sums: &mut [Line],
    ) {
        let (v_tiles, lines) = (block.rows.len().div_ceil(DEPTH), self.sums_lines());
        let stride = v_tiles * DEPTH + LANES;
        for (index, row) in rows.iter_mut().enumerate() {
            let logits = &mut logits[index * stride..][..v_tiles * DEPTH];
            // Rows of the head that do not exist have a logit of 0 so far.
            logits[block.rows.len()..].fill(f32::NEG_INFINITY);
            let first = (index / LANES * v_tiles) * TILE_LINES + index % LANES;
            let e = self.gradient.then(|| &mut e[first..][..=(v_tiles - 1) * TILE_LINES]);
            let factor = softmax_row(logits, block, row, e);
            if self.gradient && factor != 1.0 {
                let sums: &mut [f32] = bytemuck::cast_slice_mut(&mut sums[index * lines..][..lines]);
                for sum in sums {
                    *sum *= factor;
                }
            }
        }
    }
}

impl Tiled {
    /// Takes a block of `weight`.
    fn block<R: Rows + Sync>(&mut self, weight: &R, block: &Stretch, rows: &mut [Row]) {
        self.pack(weight, &block.rows);
        let mut sums = std::mem::take(&mut self.sums);
        let h = self.h.par_chunks(SLAB / LANES * self.k_tiles * TILE_LINES);
        let this = &*self;
        let slab = |rows: &mut [Row], h: &[Line], sums: &mut [Line]| {
            // SAFETY: `new` found the instructions.
            unsafe { this.slab(&Tiles::configure(), block, rows, h, sums) };
        };
        let slabs = rows.par_chunks_mut(SLAB).zip(h).with_max_len(1);
        if self.gradient {
            let sums = sums.par_chunks_mut(SLAB * self.sums_lines());
            slabs.zip(sums).for_each(|((rows, h), sums)| slab(rows, h, sums));
        } else {
            slabs.for_each(|(rows, h)| slab(rows, h, &mut []));
        }
        self.sums = sums;
    }
}

impl Engine for Tiled {
    fn take(&mut self, first: usize, head: &FrozenWeight, rows: &mut [Row]) {
        let [count, _] = head.shape();
        with_rows!(head, |weight| {
            for at in (0..count).step_by(self.width) {
                let block = Stretch { rows: at..count.min(at + self.width), first };
                self.block(&weight, &block, rows);
            }
        });
    }

    fn sums(&self, index: usize) -> &[f32] {
        bytemuck::cast_slice(&self.sums[index * self.sums_lines()..][..2 * self.k_tiles])
    }
}

/// `c = a . b` or `c += a . b` of operands that are tiles throughout, for one slab.
#[derive(Clone, Copy)]
struct Product<'a> {
    a: *const u16,
    b: *const u16,
    /// Columns of `c`, in blocks of 32.
    columns: usize,
    k_tiles: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
    /// What comes next, to be on its way by then.
    next: &'a [Line],
}

/// # Safety
/// The operands are as large as the product says.
#[inline(always)]
unsafe fn product(tiles: &Tiles, p: Product) {
    let mut next = p.next.chunks(p.next.len().div_ceil(p.columns).max(1));
    for start in (0..p.k_tiles).step_by(CHAIN) {
        let pair = |first: *const u16| {
            let first = first.wrapping_add(start * TILE);
            [first, first.wrapping_add(p.k_tiles * TILE)]
        };
        for column in 0..p.columns {
            let b = pair(p.b.wrapping_add(2 * column * p.k_tiles * TILE));
            let c = p.c.wrapping_add(column * BLOCK);
            // SAFETY: as the caller vouches; a prefetch touches nothing.
            unsafe {
                tiles.start(c, p.ldc, p.add || start > 0);
                tiles.add_streamed(pair(p.a), b, CHAIN.min(p.k_tiles - start));
                tiles.store(c, p.ldc);
                for line in next.next().into_iter().flatten() {
                    _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(line).cast());
                }
            }
        }
    }
}

/// Takes the logits of one block into a row; writes `exp(logit - max)` as bf16, 32 to a line of each tile.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn softmax_row(logits: &[f32], block: &Stretch, row: &mut Row, e: Option<&mut [Line]>) -> f32 {
    row.take_logit(&logits[..block.rows.len()], block.first + block.rows.start);
    let (chunks, _) = logits.as_chunks::<DEPTH>();
    // SAFETY: a chunk has two vectors.
    let load = |chunk: &[f32; DEPTH]| unsafe {
        [_mm512_loadu_ps(chunk.as_ptr()), _mm512_loadu_ps(chunk.as_ptr().add(LANES))]
    };
    let mut maxima = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
    for chunk in chunks {
        let values = load(chunk);
        // The second operand is the result where the first is NaN.
        maxima = [_mm512_max_ps(values[0], maxima[0]), _mm512_max_ps(values[1], maxima[1])];
    }
    let factor = row.raise(_mm512_reduce_max_ps(_mm512_max_ps(maxima[0], maxima[1])));
    let max = _mm512_set1_ps(row.seen.max);
    let mut sums = [_mm512_setzero_ps(); 2];
    let mut exps = |chunk| {
        let [low, high] = load(chunk);
        let values = [exp(_mm512_sub_ps(low, max)), exp(_mm512_sub_ps(high, max))];
        sums = [_mm512_add_ps(sums[0], values[0]), _mm512_add_ps(sums[1], values[1])];
        values
    };
    match e {
        Some(e) => {
            for (chunk, out) in chunks.iter().zip(e.iter_mut().step_by(TILE_LINES)) {
                let [low, high] = exps(chunk);
                // SAFETY: a line is 64 bytes.
                unsafe {
                    let line = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                    _mm512_storeu_si512(out.0.as_mut_ptr().cast(), line);
                }
            }
        }
        None => chunks.iter().for_each(|chunk| {
            exps(chunk);
        }),
    }
    row.seen.sum += f64::from(_mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])));
    factor
}

/// `e^x` for `x <= 0`: as `vector::exp`, with the scaling by a power of two in one instruction.
#[target_feature(enable = "avx512f")]
#[inline]
fn exp(x: __m512) -> __m512 {
    // The second operand is the result where the first is NaN or both are: a NaN passes.
    let x = _mm512_max_ps(_mm512_set1_ps(-104.0), x);
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm512_mul_ps(
        x,
        _mm512_set1_ps(std::f32::consts::LOG2_E),
    ));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    }
    let e = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0));
    _mm512_scalef_ps(e, n)
}
