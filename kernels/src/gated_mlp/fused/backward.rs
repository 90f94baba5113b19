//! The backward pass of the fused half: what the forward pass did not keep is computed again.
//!
//! With `n` the normed rows, `g`, `u` gate and up, `h = act(g) u`, and `s = scale * d. B` of each part:
//! - `dh = dy . W_down + s_down . A_down`, `dg`, `du` from it
//! - `dn = dg . W_gate + s_gate . A_gate + du . W_up + s_up . A_up`, `dx = dy + rms_norm'(dn)`
//! - `dA = s^T . input`, `dB^T = t^T . d.`, summed over the tokens of a group of [`GROUP`] and then over groups,
//!   in rising order

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::forward::{gate_and_up, normed, side_by_side};
use super::packed::PartPanels;
use super::rows::{Left, Narrow, Sum, Terms, projection};
use super::{COLUMNS, ROWS};
use crate::amx::{BLOCK, Tiles};
use crate::flex::{slice, tensor, unwritten};
use crate::gated_act::gate_rows_both;
use crate::gated_mlp::{Config, INPUTS};
use crate::isa;
use crate::lora_linear::transposed;
use crate::matmul::{Pooled, TileUnit, View};
use crate::rms_norm::normalise_rows_backward;

/// Tokens whose share of `dA` and `dB` is summed by one task. Fixed: it decides the order of sums.
const GROUP: usize = 2 * ROWS;

/// Sums over groups that one task adds up.
const SUMS: usize = 1 << 12;

/// What all tasks read.
struct Shared<'a> {
    /// Gate and up, which are computed again.
    forward: [PartPanels; 2],
    backward: [PartPanels; 3],
    norm: &'a [f32],
    config: &'a Config,
}

/// The sums of one part over a group: `dA` and the transpose of `dB`.
type PartSums = Option<[Sum; 2]>;

/// Computes the gradients of `x`, then of `A` and `B` of each part (placeholders for what is not adapted).
pub(in crate::gated_mlp) fn backward(
    inputs: &[FlexTensor; INPUTS],
    dy: &FlexTensor,
    kept: &FlexTensor,
    config: &Config,
) -> Vec<FlexTensor> {
    let unit = TileUnit::new().expect("`fits` found tiles");
    let [x, norm, factors @ ..] = inputs;
    let (x, norm, dy) = (slice(x), slice(norm), slice(dy));
    let of = |part: usize| (&config.parts[part], &factors[2 * part..2 * part + 2]);
    let again = |part| PartPanels::forward(unit, of(part).0, of(part).1);
    let back = |part| PartPanels::backward(unit, of(part).0, of(part).1);
    let shared = Shared { forward: [0, 1].map(again), backward: [0, 1, 2].map(back), norm, config };
    let (d, ranks) = (norm.len(), config.ranks());
    let m = x.len() / d;
    let kept = if ranks == 0 { &[] } else { slice(kept) };
    #[expect(unsafe_code, reason = "the kernel writes every element")]
    // SAFETY: each task writes its rows of `dx` whole.
    let mut dx = unsafe { unwritten(m * d) };
    let groups: Vec<[PartSums; 3]> = dx
        .par_chunks_mut(GROUP * d)
        .enumerate()
        .map(|(group, dx)| {
            let mut sums = shared.zero();
            let start = group * GROUP * d;
            for (stretch, dx) in dx.chunks_mut(ROWS * d).enumerate() {
                let start = start + stretch * ROWS * d;
                let kept = &kept[start / d * ranks..];
                rows(&shared, &x[start..][..dx.len()], &dy[start..][..dx.len()], kept, dx, &mut sums);
            }
            sums
        })
        .collect();
    let mut gradients = vec![tensor(dx, [m, d])];
    for (index, part) in config.parts.iter().enumerate() {
        let Some(lora) = part.lora else {
            gradients.extend([tensor(vec![0.0], [1, 1]), tensor(vec![0.0], [1, 1])]);
            continue;
        };
        let [out, width] = part.weight.shape();
        let total = |which: usize, width: usize| {
            let mut total = vec![0.0f32; lora.rank * width];
            total.par_chunks_mut(SUMS).enumerate().for_each(|(chunk, total)| {
                for sums in groups.iter().filter_map(|group| group[index].as_ref()) {
                    let values = &sums[which].values[chunk * SUMS..];
                    total.iter_mut().zip(values).for_each(|(total, value)| *total += value);
                }
            });
            total
        };
        let (da, db) = (total(0, width), total(1, out));
        let db = transposed(View { data: &db, stride: out }, lora.rank, out);
        gradients.extend([tensor(da, [lora.rank, width]), tensor(db, [out, lora.rank])]);
    }
    gradients
}

impl Shared<'_> {
    fn zero(&self) -> [PartSums; 3] {
        self.config.parts.each_ref().map(|part| {
            let [out, width] = part.weight.shape();
            part.lora.map(|lora| [Sum::new(lora.rank, width), Sum::new(lora.rank, out)])
        })
    }

    /// The low-rank products that the forward pass kept, as tiles.
    fn kept(&self, kept: &[f32], count: usize) -> [Option<Narrow>; 3] {
        let ranks = self.config.ranks();
        let mut column = 0;
        self.config.parts.each_ref().map(|part| {
            let rank = part.lora?.rank;
            let mut values = vec![0.0f32; ROWS * rank];
            for (values, kept) in values.chunks_exact_mut(rank).zip(kept.chunks_exact(ranks)).take(count) {
                values.copy_from_slice(&kept[column..column + rank]);
            }
            column += rank;
            Some(Narrow::new(values, rank))
        })
    }
}

/// Inner gradients of a stretch as tiles: `dg`, `du`, and `h` again.
struct Inner {
    dg: Left,
    du: Left,
    h: Left,
}

/// Computes one stretch of rows and adds its share to `sums`.
fn rows(shared: &Shared, x: &[f32], dy: &[f32], kept: &[f32], dx: &mut [f32], sums: &mut [PartSums; 3]) {
    let d = shared.norm.len();
    let (count, tiles) = (x.len() / d, Tiles::configure());
    let n = normed(x, shared.norm, shared.config.eps);
    let mut dy_tiles = Left::new(d);
    dy_tiles.pack(0, ROWS, dy, count, d, 0);
    let t = shared.kept(kept, count);
    let up_product = |part: usize, left: &Left| {
        let lora = shared.backward[part].lora.as_ref()?;
        Some(Narrow::product(&tiles, left, &lora.b, lora))
    };
    let s_down = up_product(2, &dy_tiles);
    let inner = inner(&tiles, shared, &n, &dy_tiles, &t, s_down.as_ref());
    let s = [up_product(0, &inner.dg), up_product(1, &inner.du), s_down];
    input_gradient(&tiles, shared, &inner, &s, x, dy, dx);
    let sides = [(&n, &inner.dg), (&n, &inner.du), (&inner.h, &dy_tiles)];
    for ((sums, (input, output)), (t, s)) in sums.iter_mut().zip(sides).zip(t.iter().zip(&s)) {
        if let (Some([da, db]), Some(t), Some(s)) = (sums, t, s) {
            s.add_over_tokens(&tiles, input, da);
            t.add_over_tokens(&tiles, output, db);
        }
    }
}

/// Computes gate and up again, and their gradients.
fn inner(
    tiles: &Tiles,
    shared: &Shared,
    n: &Left,
    dy: &Left,
    t: &[Option<Narrow>; 3],
    s_down: Option<&Narrow>,
) -> Inner {
    let f = shared.config.parts[0].weight.shape()[0];
    let down = Terms::new(projection(dy, &shared.backward[2], s_down, |lora| &lora.a));
    let [gate, up] = &gate_and_up(n, &shared.forward, [t[0].as_ref(), t[1].as_ref()]);
    let mut inner = Inner { dg: Left::new(f), du: Left::new(f), h: Left::new(f) };
    let mut pair = [0.0f32; BLOCK * 2 * COLUMNS];
    let mut dh = [0.0f32; BLOCK * COLUMNS];
    let (tier, kind) = (isa::tier(), shared.config.kind);
    for column in (0..f).step_by(COLUMNS) {
        for slab in 0..ROWS / BLOCK {
            side_by_side(tiles, [gate, up], slab, column, &mut pair);
            side_by_side(tiles, [&down], slab, column, &mut dh);
            // From here on `dh` is `h`, and `pair` its gradient.
            gate_rows_both(tier, &mut pair, &mut dh, COLUMNS, kind);
            inner.h.pack(slab * BLOCK, BLOCK, &dh, BLOCK, COLUMNS, column);
            for (half, out) in [&mut inner.dg, &mut inner.du].into_iter().enumerate() {
                out.pack_strided(slab * BLOCK, &pair[half * COLUMNS..], 2 * COLUMNS, COLUMNS, column);
            }
        }
    }
    inner
}

/// Computes `dx` of a stretch.
fn input_gradient(
    tiles: &Tiles,
    shared: &Shared,
    inner: &Inner,
    s: &[Option<Narrow>; 3],
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    let d = shared.norm.len();
    let sides = [&inner.dg, &inner.du].into_iter().zip(&shared.backward).zip(s);
    let terms =
        sides.flat_map(|((left, part), narrow)| projection(left, part, narrow.as_ref(), |lora| &lora.a));
    let mut dn = Pooled::new(ROWS * d * size_of::<f32>());
    let dn = &mut dn.of_mut::<f32>()[..ROWS * d];
    Terms::new(terms.collect()).multiply_all(tiles, dn);
    normalise_rows_backward(isa::tier(), x, shared.norm, &dn[..dx.len()], shared.config.eps, dx);
    if shared.config.residual {
        dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
    }
}
