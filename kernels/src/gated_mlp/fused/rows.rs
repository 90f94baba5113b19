//! A stretch of rows inside a task: left tiles, their products, their sums over tokens.

#![expect(unsafe_code, reason = "tiles and what packs them have no safe form")]

use crate::amx::pack::{F32Rows, TileRows, left, right_from_rows};
use crate::amx::{BLOCK, DEPTH, FETCH, LANES, TILE, Tiles};
use crate::matmul::Pooled;

use super::ROWS;
use super::packed::{LowRankPanels, Panels};

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

/// Computes 32 rows and the 32 columns of a panel of `sum of left . right` into `c`, and fetches this slab's share
/// of panel `next`, which is wanted after the last slab.
pub(super) fn multiply(
    tiles: &Tiles,
    terms: &[(&Left, &Panels)],
    slab: usize,
    [panel, next]: [usize; 2],
    c: &mut [f32],
    ldc: usize,
) {
    const _: () = assert!(ROWS / BLOCK * FETCH == 2 * TILE * 2, "the slabs together fetch a panel");
    assert!(c.len() >= (BLOCK - 1) * ldc + BLOCK, "the block does not fit");
    let c = c.as_mut_ptr();
    // SAFETY: `c` holds the block as just checked; the operands hold their tiles.
    unsafe {
        tiles.start(c, ldc, false);
        for (left, right) in terms {
            assert_eq!(left.k_tiles, right.k_tiles, "operands of different depth");
            let next =
                right.panel(next.min(right.count - 1))[0].wrapping_add(slab * right.k_tiles * FETCH / 2);
            tiles.add_and_fetch(left.slab(slab), right.panel(panel), right.k_tiles, next);
        }
        tiles.store(c, ldc);
    }
}

/// Computes all [`ROWS`] rows of `sum of left . right` into `c`, panel by panel.
pub(super) fn multiply_all(tiles: &Tiles, terms: &[(&Left, &Panels)], c: &mut [f32]) {
    let panels = terms[0].1.count;
    for panel in 0..panels {
        for slab in 0..ROWS / BLOCK {
            let c = &mut c[slab * BLOCK * panels * BLOCK + panel * BLOCK..];
            multiply(tiles, terms, slab, [panel, panel + 1], c, panels * BLOCK);
        }
    }
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
        multiply_all(tiles, &[(left, right)], &mut sums);
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
