//! The right operand of a product: dense, transposed, or a frozen weight that is unpacked panel by panel.

use std::ops::Range;

use crate::frozen::FrozenWeight;

/// A `[k, n]` matrix that can write any panel of its columns.
pub enum Operand<'a> {
    /// Row-major `[k, n]` with `stride` elements between rows.
    Dense {
        /// Elements.
        data: &'a [f32],
        /// Elements between the starts of two rows.
        stride: usize,
        /// `[k, n]`.
        shape: [usize; 2],
    },
    /// The transpose of a row-major `[n, k]` matrix.
    Transposed {
        /// Elements of the `[n, k]` matrix.
        data: &'a [f32],
        /// `[k, n]`.
        shape: [usize; 2],
    },
    /// A frozen weight `[out, in]` as the `[k = out, n = in]` operand (the backward direction).
    Weight(&'a FrozenWeight),
    /// A frozen weight `[out, in]` as the `[k = in, n = out]` operand (the forward direction).
    WeightTransposed(&'a FrozenWeight),
}

impl Operand<'_> {
    /// Returns `[k, n]`.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense { shape, .. } | Self::Transposed { shape, .. } => *shape,
            Self::Weight(weight) => weight.shape(),
            Self::WeightTransposed(weight) => {
                let [rows, cols] = weight.shape();
                [cols, rows]
            }
        }
    }

    /// Whether a column of the operand is a stretch of what it is stored as.
    pub(super) fn has_rows(&self) -> bool {
        matches!(self, Self::Transposed { .. } | Self::WeightTransposed(_))
    }

    /// Writes rows `depth` of columns `j .. j + cols` as a panel `[depth][width]`, zero beyond `cols`.
    pub(crate) fn pack(&self, depth: Range<usize>, j: usize, cols: usize, width: usize, panel: &mut [f32]) {
        let [k, n] = self.shape();
        let by_depth = |panel: &mut [f32], read: &dyn Fn(usize, &mut [f32])| {
            for (p, out) in depth.clone().zip(panel.chunks_exact_mut(width)) {
                read(p, &mut out[..cols]);
                out[cols..].fill(0.0);
            }
        };
        match self {
            Self::Dense { data, stride, .. } => {
                by_depth(panel, &|p, out| out.copy_from_slice(&data[p * stride + j..][..cols]));
            }
            Self::Weight(weight) => by_depth(panel, &|p, out| weight.read(p * n + j, out)),
            Self::Transposed { data, .. } => {
                let read = |row: usize, out: &mut [f32]| {
                    out.copy_from_slice(&data[row * k + depth.start..][..out.len()]);
                };
                transpose_rows(read, j, cols, depth.len(), width, panel);
            }
            Self::WeightTransposed(weight) => {
                let read = |row: usize, out: &mut [f32]| weight.read(row * k + depth.start, out);
                transpose_rows(read, j, cols, depth.len(), width, panel);
            }
        }
    }
}

/// Fills a `[depth][width]` panel from `cols` rows, up to sixteen at a time so that the writes stay in a cache
/// line.
fn transpose_rows(
    read: impl Fn(usize, &mut [f32]),
    j: usize,
    cols: usize,
    depth: usize,
    width: usize,
    panel: &mut [f32],
) {
    const GROUP: usize = 16;
    if width == 1 {
        return read(j, &mut panel[..depth]);
    }
    let mut rows = vec![0.0f32; GROUP * depth];
    for group in (0..width).step_by(GROUP) {
        let lanes = GROUP.min(width - group);
        let filled = cols.saturating_sub(group).min(lanes);
        for lane in 0..filled {
            read(j + group + lane, &mut rows[lane * depth..][..depth]);
        }
        rows[filled * depth..].fill(0.0);
        for (p, out) in panel.chunks_exact_mut(width).enumerate().take(depth) {
            for (lane, value) in out[group..group + lanes].iter_mut().enumerate() {
                *value = rows[lane * depth + p];
            }
        }
    }
}
