//! The forward pass of the fused half.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::packed::PartPanels;
use super::rows::{Left, Narrow, Terms, projection};
use super::{COLUMNS, ROWS};
use crate::amx::{BLOCK, Tiles};
use crate::flex::{slice, tensor, unwritten};
use crate::gated_act::gate_rows;
use crate::gated_mlp::{Config, INPUTS};
use crate::isa;
use crate::matmul::{Pooled, TileUnit};
use crate::rms_norm::normalise_rows;

/// Computes `y` and each part's low-rank product side by side.
pub(in crate::gated_mlp) fn forward(
    inputs: &[FlexTensor; INPUTS],
    config: &Config,
) -> (FlexTensor, FlexTensor) {
    let unit = TileUnit::new().expect("`fits` found tiles");
    let [x, norm, factors @ ..] = inputs;
    let (x, norm) = (slice(x), slice(norm));
    let mut factors = factors.chunks_exact(2);
    let parts = config
        .parts
        .each_ref()
        .map(|part| PartPanels::forward(unit, part, factors.next().expect("three pairs of factors")));
    let (d, ranks) = (norm.len(), config.ranks());
    let m = x.len() / d;
    let mut kept = vec![0.0f32; m * ranks];
    #[expect(unsafe_code, reason = "the kernel writes every element")]
    // SAFETY: each task writes its rows of `y` whole.
    let mut y = unsafe { unwritten(m * d) };
    let tasks = y.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d));
    if ranks == 0 {
        tasks.for_each(|(y, x)| rows(&parts, x, norm, config, y, &mut []));
    } else {
        let tasks = tasks.zip(kept.par_chunks_mut(ROWS * ranks));
        tasks.for_each(|((y, x), kept)| rows(&parts, x, norm, config, y, kept));
    }
    (tensor(y, [m, d]), tensor(kept, [m, ranks]))
}

/// Normalises rows and packs them.
pub(super) fn normed(x: &[f32], norm: &[f32], eps: f32) -> Left {
    let d = norm.len();
    let mut left = Left::new(d);
    let mut slab = vec![0.0f32; BLOCK * d];
    for row in (0..ROWS).step_by(BLOCK) {
        let x = &x[(row * d).min(x.len())..];
        let x = &x[..x.len().min(BLOCK * d)];
        normalise_rows(isa::tier(), x, norm, eps, &mut slab[..x.len()]);
        left.pack(row, BLOCK, &slab, x.len() / d, d, 0);
    }
    left
}

/// The sums that make gate and up.
pub(super) fn gate_and_up<'a>(
    normed: &'a Left,
    parts: &'a [PartPanels],
    narrow: [Option<&'a Narrow>; 2],
) -> [Terms<'a>; 2] {
    [0, 1].map(|half: usize| Terms::new(projection(normed, &parts[half], narrow[half], |lora| &lora.b)))
}

/// Computes 32 rows and [`COLUMNS`] columns, from `column` on, of each sum, side by side in rows of `out`.
pub(super) fn side_by_side<const N: usize>(
    tiles: &Tiles,
    sums: [&Terms; N],
    slab: usize,
    column: usize,
    out: &mut [f32],
) {
    let cuts = sums.iter().map(|terms| terms.cuts().end).max().unwrap_or(0);
    for cut in 0..cuts {
        for (half, terms) in sums.iter().enumerate().filter(|(_, terms)| terms.cuts().contains(&cut)) {
            for index in 0..COLUMNS / BLOCK {
                let panel = column / BLOCK + index;
                let next = (cut, panel + COLUMNS / BLOCK);
                let out = &mut out[half * COLUMNS + index * BLOCK..];
                terms.multiply(tiles, cut, slab, panel, next, out, N * COLUMNS);
            }
        }
    }
}

/// Computes one stretch of rows.
fn rows(parts: &[PartPanels; 3], x: &[f32], norm: &[f32], config: &Config, y: &mut [f32], kept: &mut [f32]) {
    let (d, ranks) = (norm.len(), config.ranks());
    let f = parts[2].weight.k_tiles * crate::amx::DEPTH;
    let tiles = Tiles::configure();
    let normed = normed(x, norm, config.eps);
    let narrow = [0, 1].map(|part: usize| {
        let lora = parts[part].lora.as_ref()?;
        Some(Narrow::product(&tiles, &normed, &lora.a, lora))
    });
    let mut inner = Left::new(f);
    let (mut pair, mut act) = ([0.0f32; BLOCK * 2 * COLUMNS], [0.0f32; BLOCK * COLUMNS]);
    let [gate, up] = &gate_and_up(&normed, parts, narrow.each_ref().map(Option::as_ref));
    for column in (0..f).step_by(COLUMNS) {
        for slab in 0..ROWS / BLOCK {
            side_by_side(&tiles, [gate, up], slab, column, &mut pair);
            gate_rows(isa::tier(), &pair, COLUMNS, &mut act, config.kind);
            inner.pack(slab * BLOCK, BLOCK, &act, BLOCK, COLUMNS, column);
        }
    }
    let down = parts[2].lora.as_ref().map(|lora| Narrow::product(&tiles, &inner, &lora.a, lora));
    let terms = projection(&inner, &parts[2], down.as_ref(), |lora| &lora.b);
    let mut sums = Pooled::new(ROWS * d * size_of::<f32>());
    let sums = &mut sums.of_mut::<f32>()[..ROWS * d];
    Terms::new(terms).multiply_all(&tiles, sums);
    if config.residual {
        y.iter_mut().zip(x).zip(&*sums).for_each(|((y, x), sum)| *y = x + sum);
    } else {
        y.copy_from_slice(&sums[..y.len()]);
    }
    let mut column = 0;
    for narrow in narrow.iter().chain([&down]).flatten() {
        for (kept, values) in kept.chunks_exact_mut(ranks).zip(narrow.values.chunks_exact(narrow.rank)) {
            kept[column..column + narrow.rank].copy_from_slice(values);
        }
        column += narrow.rank;
    }
}
