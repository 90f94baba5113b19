//! A stretch of rows inside a task: left tiles, their products, their sums over tokens.

#![expect(unsafe_code, reason = "tiles and what packs them have no safe form")]

use std::ops::Range;

use crate::amx::pack::{left, right_from_rows};
use crate::amx::rows::{F32Rows, TileRows};
use crate::amx::{BLOCK, DEPTH, FETCH, LANES, TILE, Tiles};
use crate::matmul::Pooled;

use super::ROWS;
use super::packed::{LowRankPanels, Panels, PartPanels};

/// [`ROWS`] rows of a left operand as tiles; rows that are not there are zero.
pub(super) struct Left {
    lines: Pooled,
    k_tiles: usize,
}

impl Left {
    /// Room for rows of `width`.
    pub(super) fn new(width: usize) -> Self {
        let k_tiles = width.div_ceil(DEPTH);
        Self { lines: Pooled::new(ROWS / LANES * k_tiles * TILE * 2), k_tiles }
    }

    /// Packs `count` rows at rows `from ..` and columns `column ..`: the first `rows` from `data`, then zeros.
    pub(super) fn pack(
        &mut self,
        from: usize,
        count: usize,
        data: &[f32],
        rows: usize,
        width: usize,
        column: usize,
    ) {
        self.pack_view(from, count, &F32Rows { data, stride: width, width }, rows, column);
    }

    /// Packs a block of 32 rows, `stride` apart, at rows `from ..` and columns `column ..`.
    pub(super) fn pack_strided(
        &mut self,
        from: usize,
        data: &[f32],
        stride: usize,
        width: usize,
        column: usize,
    ) {
        self.pack_view(from, BLOCK, &F32Rows { data, stride, width }, BLOCK, column);
    }

    fn pack_view(&mut self, from: usize, count: usize, view: &F32Rows, rows: usize, column: usize) {
        let k_tiles = view.width.div_ceil(DEPTH);
        let tiles = self.lines.of_mut::<u16>();
        for row in (0..count).step_by(LANES) {
            let at = ((from + row) / LANES * self.k_tiles + column / DEPTH) * TILE;
            let out = &mut tiles[at..][..k_tiles * TILE];
            // SAFETY: a task runs where tiles are available, which includes the vectors; the view holds `rows` rows.
            unsafe { left(view, row, rows, 0, k_tiles, out.as_mut_ptr()) };
        }
    }

    /// The tiles of two halves of a slab of 32 rows.
    fn slab(&self, slab: usize) -> [*const u16; 2] {
        let tiles = self.lines.of::<u16>();
        [0, 1].map(|half| tiles[(2 * slab + half) * self.k_tiles * TILE..][..self.k_tiles * TILE].as_ptr())
    }

    fn view(&self) -> TileRows<'_> {
        TileRows { tiles: self.lines.of(), k_tiles: self.k_tiles }
    }
}

/// Tiles of `k` that are multiplied in one turn: the slab of the left operand (40 KB) then stays in a first-level cache of
/// 48 KB while the right one streams past it.
const CUT: usize = 20;

/// A sum of products, cut along `k`.
pub(super) struct Terms<'a> {
    terms: Vec<(&'a Left, &'a Panels)>,
    /// For each turn: which terms, and which of their tiles.
    cuts: Vec<Vec<(usize, Range<usize>)>>,
}

impl<'a> Terms<'a> {
    /// `sum of left . right`.
    pub(super) fn new(terms: Vec<(&'a Left, &'a Panels)>) -> Self {
        let mut cuts: Vec<Vec<(usize, Range<usize>)>> = Vec::new();
        for (index, (left, right)) in terms.iter().enumerate() {
            assert_eq!(left.k_tiles, right.k_tiles, "operands of different depth");
            let step = left.k_tiles.div_ceil(left.k_tiles.div_ceil(CUT));
            for from in (0..left.k_tiles).step_by(step) {
                let range = from..left.k_tiles.min(from + step);
                match cuts.last_mut() {
                    // A low-rank product is not worth a turn of its own.
                    Some(last) if range.len() <= 2 => last.push((index, range)),
                    _ => cuts.push(vec![(index, range)]),
                }
            }
        }
        Self { terms, cuts }
    }

    /// The turns.
    pub(super) fn cuts(&self) -> Range<usize> {
        0..self.cuts.len()
    }

    /// Computes 32 rows and the 32 columns of a panel into `c`, in turn `cut`, and fetches this slab's share of what
    /// turn `next.0` wants of panel `next.1` once all slabs are through.
    pub(super) fn multiply(
        &self,
        tiles: &Tiles,
        cut: usize,
        slab: usize,
        panel: usize,
        next: (usize, usize),
        c: &mut [f32],
        ldc: usize,
    ) {
        const _: () = assert!(ROWS / BLOCK * FETCH == 2 * TILE * 2, "the slabs together fetch a panel");
        assert!(c.len() >= (BLOCK - 1) * ldc + BLOCK, "the block does not fit");
        let c = c.as_mut_ptr();
        let mut next = self.wanted(next, slab);
        // SAFETY: `c` holds the block as just checked; the operands hold their tiles.
        unsafe {
            tiles.start(c, ldc, cut > 0);
            for (term, range) in &self.cuts[cut] {
                let (left, right) = self.terms[*term];
                let [a, b] = [left.slab(slab), right.panel(panel)]
                    .map(|halves| halves.map(|half| half.wrapping_add(range.start * TILE)));
                tiles.add_and_fetch(a, b, range.len(), next);
                next = next.wrapping_add(range.len() * FETCH / 2);
            }
            tiles.store(c, ldc);
        }
    }

    /// Where a slab's share of a panel's tiles in a turn begins: half a column of tiles.
    fn wanted(&self, (cut, panel): (usize, usize), slab: usize) -> *const u16 {
        let (term, range) = &self.cuts[cut.min(self.cuts.len() - 1)][0];
        let right = self.terms[*term].1;
        let column = right.panel(panel.min(right.count - 1))[slab / 2 % 2];
        column.wrapping_add((range.start * TILE) + slab % 2 * range.len() * TILE / 2)
    }

    /// Computes all [`ROWS`] rows into `c`.
    pub(super) fn multiply_all(&self, tiles: &Tiles, c: &mut [f32]) {
        let panels = self.terms[0].1.count;
        for cut in self.cuts() {
            for slab in 0..ROWS / BLOCK {
                for panel in 0..panels {
                    let c = &mut c[slab * BLOCK * panels * BLOCK + panel * BLOCK..];
                    self.multiply(tiles, cut, slab, panel, (cut + 1, panel), c, panels * BLOCK);
                }
            }
        }
    }
}

/// The terms of one projection: the frozen product, and the low-rank one where there is one.
pub(super) fn projection<'a>(
    left: &'a Left,
    part: &'a PartPanels,
    narrow: Option<&'a Narrow>,
    factor: fn(&LowRankPanels) -> &Panels,
) -> Vec<(&'a Left, &'a Panels)> {
    let low = narrow.zip(part.lora.as_ref()).map(|(narrow, lora)| (&narrow.tiles, factor(lora)));
    [(left, &part.weight)].into_iter().chain(low).collect()
}

/// A low-rank product of a stretch: in f32, `[ROWS, rank]`, and as tiles.
pub(super) struct Narrow {
    pub(super) values: Vec<f32>,
    pub(super) rank: usize,
    pub(super) tiles: Left,
}

impl Narrow {
    /// Computes `scale * left . right`, where `right` is a factor of `lora`.
    pub(super) fn product(tiles: &Tiles, left: &Left, right: &Panels, lora: &LowRankPanels) -> Self {
        let width = right.count * BLOCK;
        let mut sums = vec![0.0f32; ROWS * width];
        Terms::new(vec![(left, right)]).multiply_all(tiles, &mut sums);
        let mut values = vec![0.0f32; ROWS * lora.rank];
        for (values, sums) in values.chunks_exact_mut(lora.rank).zip(sums.chunks_exact(width)) {
            values.iter_mut().zip(sums).for_each(|(value, sum)| *value = lora.scale * sum);
        }
        Self::new(values, lora.rank)
    }

    /// Packs `[ROWS, rank]` values.
    pub(super) fn new(values: Vec<f32>, rank: usize) -> Self {
        let mut tiles = Left::new(rank);
        tiles.pack(0, ROWS, &values, ROWS, rank, 0);
        Self { values, rank, tiles }
    }

    /// Adds `self^T . wide` to `out`: `[rank padded to 16, width]`, the tokens in rising order.
    pub(super) fn add_over_tokens(&self, tiles: &Tiles, wide: &Left, out: &mut Sum) {
        const K_TILES: usize = ROWS / DEPTH;
        let lanes = self.rank.div_ceil(LANES);
        let mut turned = vec![0.0f32; lanes * LANES * ROWS];
        for (row, values) in self.values.chunks_exact(self.rank).enumerate() {
            values.iter().enumerate().for_each(|(rank, value)| turned[rank * ROWS + row] = *value);
        }
        let mut narrow = vec![0u16; lanes * K_TILES * TILE];
        let view = F32Rows { data: &turned, stride: ROWS, width: ROWS };
        for (lane, out) in narrow.chunks_exact_mut(K_TILES * TILE).enumerate() {
            // SAFETY: as in `Left::pack`.
            unsafe { left(&view, lane * LANES, lanes * LANES, 0, K_TILES, out.as_mut_ptr()) };
        }
        let mut panel = [0u16; 2 * K_TILES * TILE];
        for column in (0..out.width).step_by(BLOCK) {
            let (first, second) = panel.split_at_mut(K_TILES * TILE);
            let halves = [first.as_mut_ptr(), second.as_mut_ptr()];
            // SAFETY: as in `Left::pack`; the halves hold the tiles of all rows.
            unsafe { right_from_rows(&wide.view(), 0, ROWS, column, K_TILES, halves) };
            let b = [panel.as_ptr(), panel[K_TILES * TILE..].as_ptr()];
            for (lane, a) in narrow.chunks_exact(K_TILES * TILE).enumerate() {
                let c = &mut out.values[lane * LANES * out.width + column..];
                assert!(c.len() >= (LANES - 1) * out.width + BLOCK, "the block does not fit");
                // SAFETY: `c` holds 16 rows of 32, `out.width` apart, and the operands hold their tiles.
                unsafe { tiles.half_block(a.as_ptr(), b, K_TILES, c.as_mut_ptr(), out.width, true) };
            }
        }
    }
}

/// A sum over tokens, `[rank padded to 16, width]`.
#[derive(Clone)]
pub(super) struct Sum {
    pub(super) values: Vec<f32>,
    pub(super) width: usize,
}

impl Sum {
    /// Zero.
    pub(super) fn new(rank: usize, width: usize) -> Self {
        Self { values: vec![0.0; rank.next_multiple_of(LANES) * width], width }
    }
}
