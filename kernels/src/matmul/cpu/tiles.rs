//! The unit of bf16 tiles: both operands rounded to bf16, sums in f32.

use std::ops::Range;

use rayon::prelude::*;

use super::scratch::Pooled;
use super::{Operand, Unit, View};
use crate::amx::pack::{left, right_from_columns, right_from_rows};
use crate::amx::rows::{F32Rows, Rows, with_rows};
use crate::amx::{BLOCK, DEPTH, LANES, TILE, Tiles, available};
use crate::frozen::FrozenWeight;

/// Products of bf16 in AMX tiles.
#[derive(Clone, Copy)]
pub(crate) struct TileUnit(());

impl TileUnit {
    /// The unit, where there is one.
    pub(crate) fn new() -> Option<Self> {
        available().then_some(Self(()))
    }
}

/// A left operand as tiles: `[m / 16][k / 32]`, rows padded to whole slabs.
pub(crate) struct TileRows {
    tiles: Pooled,
    k_tiles: usize,
}

impl TileRows {
    /// Packs rows that `fill` writes, each `width` long, on all threads.
    fn pack(m: usize, k: usize, rows: View) -> Self {
        let k_tiles = k.div_ceil(DEPTH);
        let row_bytes = k_tiles * TILE * 2;
        let mut tiles = Pooled::new(m.next_multiple_of(BLOCK) / LANES * row_bytes);
        let view = F32Rows { data: rows.data, stride: rows.stride, width: k };
        let out = tiles.of_mut::<u16>();
        let out = &mut out[..m.next_multiple_of(BLOCK) / LANES * k_tiles * TILE];
        out.par_chunks_mut((4 * k_tiles * TILE).max(1)).enumerate().for_each(|(group, out)| {
            for (i, out) in out.chunks_exact_mut(k_tiles * TILE).enumerate() {
                // SAFETY: tiles are available, which includes the vectors, and `out` holds `k_tiles` tiles.
                unsafe { left(&view, (4 * group + i) * LANES, m, 0, k_tiles, out.as_mut_ptr()) };
            }
        });
        Self { tiles, k_tiles }
    }
}

impl Unit for TileUnit {
    type Left<'a> = TileRows;
    type Session = Tiles;

    fn slab_rows(self) -> usize {
        BLOCK
    }

    fn panel_columns(self) -> usize {
        BLOCK
    }

    fn depth_grain(self) -> usize {
        DEPTH
    }

    fn depth_most(self) -> usize {
        // A slab of the left operand then stays in the first-level cache.
        640
    }

    fn task_bytes(self) -> usize {
        512 << 10
    }

    fn panel_bytes(self, depth: usize) -> usize {
        depth.div_ceil(DEPTH) * 2 * TILE * 2
    }

    fn left(self, m: usize, k: usize, rows: View<'_>) -> TileRows {
        assert!(m == 0 || rows.data.len() >= (m - 1) * rows.stride + k, "the left operand is too short");
        TileRows::pack(m, k, rows)
    }

    fn begin(self) -> Tiles {
        Tiles::configure()
    }

    fn pack(self, right: &Operand, depth: Range<usize>, columns: Range<usize>, panels: &mut [u8]) {
        let part = Part { depth, columns, panels: bytemuck::cast_slice_mut(panels) };
        match right {
            Operand::Dense { data, stride, shape: [_, n] } => {
                part.pack_rows(&F32Rows { data, stride: *stride, width: *n }, right);
            }
            Operand::Transposed { data, shape: [k, _] } => {
                part.pack_columns(&F32Rows { data, stride: *k, width: *k }, right);
            }
            Operand::Weight(weight) | Operand::WeightTransposed(weight) => part.pack_weight(weight, right),
        }
    }

    unsafe fn slab<'p, 'l: 'p>(
        self,
        tiles: &Tiles,
        cuts: impl Iterator<Item = (&'p TileRows, Range<usize>, &'p [u8])> + Clone,
        rows: Range<usize>,
        columns: usize,
        c: *mut f32,
        ldc: usize,
        add: bool,
    ) {
        let mut part = [0.0f32; BLOCK * BLOCK];
        for (index, j) in (0..columns).step_by(BLOCK).enumerate() {
            let width = BLOCK.min(columns - j);
            let whole = rows.len() == BLOCK && width == BLOCK;
            let place = Place { c: c.wrapping_add(j), ldc, rows: rows.len(), columns: width };
            let (c, ldc) = if whole { (place.c, ldc) } else { (part.as_mut_ptr(), BLOCK) };
            // SAFETY: the caller vouches for the operands and the output; `part` is a whole block.
            unsafe {
                if !whole && add {
                    place.read(&mut part);
                }
                tiles.start(c, ldc, add);
                for (left, depth, panels) in cuts.clone() {
                    let k_tiles = depth.len().div_ceil(DEPTH);
                    let a = left.tiles.of::<u16>();
                    let a = [0, 1].map(|half| {
                        a[((rows.start / LANES + half) * left.k_tiles + depth.start / DEPTH) * TILE..]
                            .as_ptr()
                    });
                    let size = self.panel_bytes(depth.len());
                    let panel: &[u16] = bytemuck::cast_slice(&panels[index * size..(index + 1) * size]);
                    tiles.add_streamed(a, [panel.as_ptr(), panel[k_tiles * TILE..].as_ptr()], k_tiles);
                }
                tiles.store(c, ldc);
                if !whole {
                    place.write(&part);
                }
            }
        }
    }
}

/// The part of a block that is in the output.
#[derive(Clone, Copy)]
struct Place {
    c: *mut f32,
    ldc: usize,
    rows: usize,
    columns: usize,
}

impl Place {
    /// Copies the output into a block.
    ///
    /// # Safety
    /// `c` may be read at `rows x columns`.
    unsafe fn read(self, block: &mut [f32; BLOCK * BLOCK]) {
        for (row, block) in block.chunks_exact_mut(BLOCK).enumerate().take(self.rows) {
            // SAFETY: as the caller vouches.
            let c = unsafe { std::slice::from_raw_parts(self.c.add(row * self.ldc), self.columns) };
            block[..self.columns].copy_from_slice(c);
        }
    }

    /// Copies a block into the output.
    ///
    /// # Safety
    /// `c` may be written at `rows x columns`, which no other thread touches.
    unsafe fn write(self, block: &[f32; BLOCK * BLOCK]) {
        for (row, block) in block.chunks_exact(BLOCK).enumerate().take(self.rows) {
            // SAFETY: as the caller vouches.
            let c = unsafe { std::slice::from_raw_parts_mut(self.c.add(row * self.ldc), self.columns) };
            c.copy_from_slice(&block[..self.columns]);
        }
    }
}

/// A stretch of a right operand and the panels it is packed to: for each 32 columns two columns of tiles.
struct Part<'a> {
    depth: Range<usize>,
    columns: Range<usize>,
    panels: &'a mut [u16],
}

impl Part<'_> {
    fn pack_weight(self, weight: &FrozenWeight, right: &Operand) {
        with_rows!(weight, |rows| self.pack_any(&rows, right));
    }

    fn pack_any(self, rows: &impl Rows, right: &Operand) {
        if right.has_rows() { self.pack_columns(rows, right) } else { self.pack_rows(rows, right) }
    }

    /// Packs a matrix `[n, k]` whose rows are the operand's columns.
    fn pack_columns(self, rows: &impl Rows, right: &Operand) {
        let end = right.shape()[1];
        let k_tiles = self.depth.len().div_ceil(DEPTH);
        let halves = self.panels.chunks_exact_mut(k_tiles * TILE);
        for (j, half) in
            (self.columns.start..self.columns.end.next_multiple_of(BLOCK)).step_by(LANES).zip(halves)
        {
            // SAFETY: tiles are available, which includes the vectors; rows beyond `end` are not read, depths lie
            // in the matrix, and the half holds `k_tiles` tiles.
            unsafe { right_from_columns(rows, j, end, self.depth.start, k_tiles, half.as_mut_ptr()) };
        }
    }

    /// Packs a matrix `[k, n]`.
    fn pack_rows(self, rows: &impl Rows, right: &Operand) {
        let end = right.shape()[0];
        let k_tiles = self.depth.len().div_ceil(DEPTH);
        let panels = self.panels.chunks_exact_mut(2 * k_tiles * TILE);
        for (j, panel) in self.columns.step_by(BLOCK).zip(panels) {
            let (first, second) = panel.split_at_mut(k_tiles * TILE);
            let out = [first.as_mut_ptr(), second.as_mut_ptr()];
            // SAFETY: as above.
            unsafe { right_from_rows(rows, self.depth.start, end, j, k_tiles, out) };
        }
    }
}
