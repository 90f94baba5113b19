//! Double quantization: the scales of NF4 blocks as 8-bit codes, one f32 scale for 256 of them.
//!
//! `offset = mean(absmax)`, then `absmax - offset` is quantized in blocks of 256 with a signed dynamic map whose
//! values lie denser near zero. Source: bitsandbytes 0.50.2 (MIT), `functional.py` (`quantize_4bit`,
//! `create_dynamic_map`) and the behaviour of its CPU library's `cquantize_blockwise_cpu_fp32`.

use std::sync::LazyLock;

use super::Absmax;

/// Codes that share one f32 scale.
pub const NESTED_BLOCK: usize = 256;

/// Positive half of bitsandbytes' signed dynamic map below 1. The whole map is these values negated, 0, these
/// values, 1. Literals, because the last bits come from torch's vectorised `linspace`.
const POSITIVE: [f32; 127] = [
    5.5000004e-7,
    3.2500002e-6,
    7.75e-6,
    2.1249998e-5,
    4.375e-5,
    6.625e-5,
    8.875e-5,
    0.00015625001,
    0.00026875004,
    0.00038125002,
    0.00049375003,
    0.0006062501,
    0.00071875006,
    0.00083125,
    0.0009437501,
    0.0012812499,
    0.00184375,
    0.00240625,
    0.00296875,
    0.0035312497,
    0.00409375,
    0.0046562497,
    0.0052187503,
    0.00578125,
    0.00634375,
    0.00690625,
    0.00746875,
    0.00803125,
    0.00859375,
    0.009156249,
    0.00971875,
    0.01140625,
    0.01421875,
    0.01703125,
    0.019843752,
    0.02265625,
    0.02546875,
    0.028281251,
    0.03109375,
    0.03390625,
    0.036718752,
    0.03953125,
    0.042343747,
    0.04515625,
    0.04796875,
    0.05078125,
    0.05359375,
    0.05640625,
    0.059218753,
    0.06203125,
    0.06484375,
    0.067656256,
    0.070468746,
    0.07328125,
    0.07609375,
    0.07890625,
    0.08171876,
    0.08453125,
    0.08734375,
    0.09015625,
    0.092968754,
    0.09578126,
    0.09859375,
    0.107031256,
    0.12109375,
    0.13515624,
    0.14921875,
    0.16328125,
    0.17734376,
    0.19140625,
    0.20546874,
    0.21953125,
    0.23359375,
    0.24765624,
    0.26171875,
    0.27578127,
    0.28984374,
    0.30390626,
    0.31796873,
    0.33203125,
    0.34609374,
    0.36015624,
    0.37421876,
    0.38828123,
    0.40234375,
    0.41640624,
    0.43046874,
    0.44453126,
    0.45859373,
    0.47265625,
    0.4867187,
    0.50078124,
    0.5148437,
    0.5289062,
    0.54296875,
    0.5570313,
    0.5710938,
    0.58515626,
    0.5992187,
    0.61328125,
    0.6273438,
    0.6414063,
    0.65546876,
    0.6695312,
    0.68359375,
    0.6976563,
    0.7117188,
    0.72578126,
    0.7398437,
    0.75390625,
    0.7679688,
    0.78203124,
    0.79609376,
    0.8101562,
    0.82421875,
    0.8382813,
    0.85234374,
    0.86640626,
    0.8804687,
    0.89453125,
    0.9085938,
    0.92265624,
    0.93671876,
    0.9507812,
    0.96484375,
    0.9789063,
    0.99296874,
];

static MAP: LazyLock<[f32; 256]> = LazyLock::new(|| {
    let mut map = [0.0; 256];
    for (i, &value) in POSITIVE.iter().enumerate() {
        map[126 - i] = -value;
        map[128 + i] = value;
    }
    map[255] = 1.0;
    map
});

/// Code of each of 65536 equally spaced values from -1 to 1. bitsandbytes rounds to this grid before it looks
/// for the nearest code, so values close to a midpoint may get the neighbour; equal bytes need the same grid.
static GRID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut code = 0_usize;
    (0..=u16::MAX)
        .map(|i| {
            let value = f32::from(i) * 2.0 / 65535.0 - 1.0;
            while code < 255 && value > (MAP[code] + MAP[code + 1]) * 0.5 {
                code += 1;
            }
            code as u8
        })
        .collect()
});

/// Quantizes scales to 8 bits, bit-equal to bitsandbytes.
pub(super) fn quantize(absmax: &[f32]) -> Absmax {
    let offset = mean(absmax);
    let mut codes = Vec::with_capacity(absmax.len());
    let mut nested_absmax = Vec::with_capacity(absmax.len().div_ceil(NESTED_BLOCK));
    for block in absmax.chunks(NESTED_BLOCK) {
        let largest = block.iter().fold(0.0_f32, |max, &scale| max.max((scale - offset).abs()));
        nested_absmax.push(largest);
        let reciprocal = 1.0 / largest;
        // All scales equal: bitsandbytes writes code 0 and a scale of 0, which reads back as the offset.
        codes.extend(block.iter().map(|scale| match largest {
            0.0 => 0,
            _ => code((scale - offset) * reciprocal),
        }));
    }
    Absmax::Double { codes, nested_absmax, nested_block: NESTED_BLOCK, offset, map: Box::new(*MAP) }
}

/// Code of a value in -1 to 1. bitsandbytes' library computes the index with one fused multiply-add; in f64 the
/// product and sum are exact, so that one rounding to f32 gives the same on every machine.
fn code(value: f32) -> u8 {
    let unit = (value.clamp(-1.0, 1.0) + 1.0) * 0.5;
    let index = (f64::from(unit) * 65535.0 + 0.5) as f32;
    GRID[usize::from(index as u16)]
}

/// Lanes of the vector registers that torch's sum is compiled for.
const LANES: usize = 8;
/// Vectors (or, for short input, numbers) that torch's sum adds side by side.
const ROWS: usize = 4;
/// Levels of torch's cascade.
const LEVELS: usize = 4;

/// Mean in torch's order of additions, so that the offset has the same bits as bitsandbytes'.
///
/// torch adds `LANES` columns at once, in four interleaved rows, in a cascade of partial sums, then the lanes
/// from first to last. Source: PyTorch (BSD-3), `aten/src/ATen/native/cpu/SumKernel.cpp` (`cascade_sum`), one
/// thread. An empty slice has mean 0 here.
fn mean(values: &[f32]) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let sum = if values.len() < LANES {
        row_sum::<1>(values)[0]
    } else {
        let (vectors, rest) = values.split_at(values.len() / LANES * LANES);
        let rest = rest.iter().fold(0.0, |sum, value| sum + value);
        row_sum::<LANES>(vectors).iter().fold(rest, |sum, lane| sum + lane)
    };
    sum / values.len() as f32
}

/// Sums a `[vectors, N]` slice over its first axis.
fn row_sum<const N: usize>(values: &[f32]) -> [f32; N] {
    let whole = values.len() / (N * ROWS) * (N * ROWS);
    let mut rows = cascade::<N>(&values[..whole]);
    for vector in values[whole..].chunks_exact(N) {
        add(&mut rows[0], vector);
    }
    let [mut sum, rest @ ..] = rows;
    for row in &rest {
        add(&mut sum, row);
    }
    sum
}

/// Sums a `[steps, ROWS, N]` slice over its first axis: level `j` collects `2^power` sums of level `j - 1`.
fn cascade<const N: usize>(values: &[f32]) -> [[f32; N]; ROWS] {
    let steps = values.len() / (N * ROWS);
    let log2_ceil = if steps <= 2 { 1 } else { (steps - 1).ilog2() as usize + 1 };
    let power = (log2_ceil / LEVELS).max(4);
    let mut levels = [[[0.0_f32; N]; ROWS]; LEVELS];
    for (step, vectors) in values.chunks_exact(N * ROWS).enumerate() {
        for (row, vector) in levels[0].iter_mut().zip(vectors.chunks_exact(N)) {
            add(row, vector);
        }
        let done = step + 1;
        for level in 1..LEVELS {
            if done % (1 << (level * power)) != 0 {
                break;
            }
            let lower = std::mem::replace(&mut levels[level - 1], [[0.0; N]; ROWS]);
            add_rows(&mut levels[level], &lower);
        }
    }
    let [mut sum, rest @ ..] = levels;
    for level in &rest {
        add_rows(&mut sum, level);
    }
    sum
}

fn add_rows<const N: usize>(sum: &mut [[f32; N]; ROWS], rows: &[[f32; N]; ROWS]) {
    for (sum, row) in sum.iter_mut().zip(rows) {
        add(sum, row);
    }
}

fn add<const N: usize>(sum: &mut [f32; N], values: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}
