//! The right operand of a product: dense, transposed, or a frozen weight that is unpacked panel by panel.

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

    /// Writes columns `j .. j + cols` as a panel `[k][width]`, zero beyond `cols`.
    pub(crate) fn pack(&self, j: usize, cols: usize, width: usize, panel: &mut [f32]) {
        let [k, _] = self.shape();
        match self {
            Self::Dense { data, stride, .. } => {
                for (p, out) in panel.chunks_exact_mut(width).enumerate().take(k) {
                    out[..cols].copy_from_slice(&data[p * stride + j..][..cols]);
                    out[cols..].fill(0.0);
                }
            }
            Self::Transposed { data, .. } => {
                transpose_rows(
                    |row, out| out.copy_from_slice(&data[row * k..][..k]),
                    j,
                    cols,
                    k,
                    width,
                    panel,
                );
            }
            Self::Weight(weight) => {
                let [_, n] = weight.shape();
                for (p, out) in panel.chunks_exact_mut(width).enumerate().take(k) {
                    weight.read(p * n + j, &mut out[..cols]);
                    out[cols..].fill(0.0);
                }
            }
            Self::WeightTransposed(weight) => {
                transpose_rows(|row, out| weight.read(row * k, out), j, cols, k, width, panel);
            }
        }
    }
}

/// Fills a `[k][width]` panel from `cols` rows of length `k`, sixteen at a time so that the writes stay in
/// a cache line.
fn transpose_rows(
    read: impl Fn(usize, &mut [f32]),
    j: usize,
    cols: usize,
    k: usize,
    width: usize,
    panel: &mut [f32],
) {
    const GROUP: usize = 16;
    let mut rows = vec![0.0f32; GROUP * k];
    for group in (0..width).step_by(GROUP) {
        let lanes = GROUP.min(width - group);
        let filled = cols.saturating_sub(group).min(lanes);
        for lane in 0..filled {
            read(j + group + lane, &mut rows[lane * k..][..k]);
        }
        rows[filled * k..].fill(0.0);
        for (p, out) in panel.chunks_exact_mut(width).enumerate().take(k) {
            for (lane, value) in out[group..group + lanes].iter_mut().enumerate() {
                *value = rows[lane * k + p];
            }
        }
    }
}
