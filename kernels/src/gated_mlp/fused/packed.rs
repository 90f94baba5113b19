//! Right operands of the whole half, packed once a call on all threads.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::amx::{BLOCK, DEPTH, TILE};
use crate::flex::slice;
use crate::lora_linear::FrozenPart;
use crate::matmul::{Operand, Pooled, TileUnit, Unit};

/// A right operand `[k, n]` as panels of 32 columns.
pub(super) struct Panels {
    lines: Pooled,
    pub(super) k_tiles: usize,
    pub(super) count: usize,
}

impl Panels {
    fn new(unit: TileUnit, right: &Operand) -> Self {
        let [k, n] = right.shape();
        let (bytes, count) = (unit.panel_bytes(k), n.div_ceil(BLOCK));
        let mut lines = Pooled::new(bytes * count);
        lines.bytes_mut(0..bytes * count).par_chunks_exact_mut(bytes).enumerate().for_each(|(panel, out)| {
            unit.pack(right, 0..k, panel * BLOCK..n.min((panel + 1) * BLOCK), out);
        });
        Self { lines, k_tiles: k.div_ceil(DEPTH), count }
    }

    /// The two columns of tiles of a panel.
    pub(super) fn panel(&self, panel: usize) -> [*const u16; 2] {
        let tiles = &self.lines.of::<u16>()[2 * panel * self.k_tiles * TILE..][..2 * self.k_tiles * TILE];
        [tiles.as_ptr(), tiles[self.k_tiles * TILE..].as_ptr()]
    }
}

/// The factors of a part as right operands.
pub(super) struct LowRankPanels {
    pub(super) a: Panels,
    pub(super) b: Panels,
    pub(super) rank: usize,
    pub(super) scale: f32,
}

/// A part's right operands in one direction.
pub(super) struct PartPanels {
    pub(super) weight: Panels,
    pub(super) lora: Option<LowRankPanels>,
}

impl PartPanels {
    /// For `x . W^T + (x . A^T) . B^T`.
    pub(super) fn forward(unit: TileUnit, part: &FrozenPart, factors: &[FlexTensor]) -> Self {
        let [out, width] = part.weight.shape();
        let lora = part.lora.map(|lora| LowRankPanels {
            a: Panels::new(
                unit,
                &Operand::Transposed { data: slice(&factors[0]), shape: [width, lora.rank] },
            ),
            b: Panels::new(unit, &Operand::Transposed { data: slice(&factors[1]), shape: [lora.rank, out] }),
            rank: lora.rank,
            scale: lora.scale,
        });
        Self { weight: Panels::new(unit, &Operand::WeightTransposed(&part.weight)), lora }
    }

    /// For `dy . W + (dy . B) . A`.
    pub(super) fn backward(unit: TileUnit, part: &FrozenPart, factors: &[FlexTensor]) -> Self {
        let [out, width] = part.weight.shape();
        let dense = |tensor, shape: [usize; 2]| {
            Panels::new(unit, &Operand::Dense { data: slice(tensor), stride: shape[1], shape })
        };
        let lora = part.lora.map(|lora| LowRankPanels {
            a: dense(&factors[0], [lora.rank, width]),
            b: dense(&factors[1], [out, lora.rank]),
            rank: lora.rank,
            scale: lora.scale,
        });
        Self { weight: Panels::new(unit, &Operand::Weight(&part.weight)), lora }
    }
}
