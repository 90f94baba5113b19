use half::bf16;

use super::pack::{left, left_from_columns, right_from_columns, right_from_rows};
use super::rows::{Bf16Rows, F32Rows, Int8Rows, Nf4Rows, ReadRows, Rows};
use super::{BLOCK, Block, DEPTH, LANES, TILE, Tiles, available};
use crate::frozen::{Compute, FrozenWeight, Storage};
use crate::testing::random;
use crate::{int8, nf4};

fn value(bits: u16) -> f32 {
    bf16::from_bits(bits).to_f32()
}

fn rounded(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// Reads `[rows, cols]` back from left tiles.
fn unpack_left(tiles: &[u16], row: usize, k: usize) -> f32 {
    value(tiles[k / DEPTH * TILE + row * DEPTH + k % DEPTH])
}

/// Reads element `(k, column)` of one column of right tiles.
fn unpack_right(tiles: &[u16], k: usize, column: usize) -> f32 {
    value(tiles[k / DEPTH * TILE + k % DEPTH / 2 * DEPTH + 2 * column + k % 2])
}

/// Packs a `[rows, width]` matrix all four ways and compares each element with `expected`.
fn check_packing(rows: &impl Rows, count: usize, width: usize, expected: impl Fn(usize, usize) -> f32) {
    let k_tiles = width.div_ceil(DEPTH);
    let at = |row: usize, col: usize| if row < count && col < width { expected(row, col) } else { 0.0 };
    for start in (0..count).step_by(LANES) {
        let mut tiles = vec![1u16; k_tiles * TILE];
        // SAFETY: the tests below run where tiles are available; the buffer holds `k_tiles` tiles.
        unsafe { left(rows, start, count, 0, k_tiles, tiles.as_mut_ptr()) };
        for (lane, col) in (0..LANES).flat_map(|lane| (0..k_tiles * DEPTH).map(move |col| (lane, col))) {
            assert_eq!(unpack_left(&tiles, lane, col), at(start + lane, col), "left {start}+{lane}, {col}");
        }
        // SAFETY: as above.
        unsafe { right_from_columns(rows, start, count, 0, k_tiles, tiles.as_mut_ptr()) };
        for (lane, col) in (0..LANES).flat_map(|lane| (0..k_tiles * DEPTH).map(move |col| (lane, col))) {
            assert_eq!(
                unpack_right(&tiles, col, lane),
                at(start + lane, col),
                "columns {start}+{lane}, {col}"
            );
        }
    }
    let row_tiles = count.div_ceil(DEPTH);
    for col in (0..width).step_by(DEPTH) {
        let mut tiles = vec![1u16; 2 * row_tiles * TILE];
        let (first, second) = tiles.split_at_mut(row_tiles * TILE);
        // SAFETY: as above.
        unsafe { right_from_rows(rows, 0, count, col, row_tiles, [first.as_mut_ptr(), second.as_mut_ptr()]) };
        for (row, lane) in (0..row_tiles * DEPTH).flat_map(|row| (0..DEPTH).map(move |lane| (row, lane))) {
            let half: &[u16] = if lane < LANES { first } else { second };
            assert_eq!(
                unpack_right(half, row, lane % LANES),
                at(row, col + lane),
                "rows {row}, {col}+{lane}"
            );
        }
        let (first, second) = tiles.split_at_mut(row_tiles * TILE);
        // SAFETY: as above.
        unsafe {
            left_from_columns(rows, 0, count, col, row_tiles, [first.as_mut_ptr(), second.as_mut_ptr()]);
        }
        for (row, lane) in (0..row_tiles * DEPTH).flat_map(|row| (0..DEPTH).map(move |lane| (row, lane))) {
            let half: &[u16] = if lane < LANES { first } else { second };
            let got = unpack_left(half, lane % LANES, row);
            assert_eq!(got, at(row, col + lane), "left, columns {row}, {col}+{lane}");
        }
    }
}

#[test]
fn every_storage_packs_into_the_tiles_that_are_documented() {
    if !available() {
        return;
    }
    for (count, width) in [(1, 32), (16, 64), (21, 96), (50, 160)] {
        let x = random(count as u64, count * width, 2.0);
        let f32_rows = F32Rows { data: &x, stride: width, width };
        check_packing(&f32_rows, count, width, |row, col| rounded(x[row * width + col]));
        let narrow: Vec<bf16> = x.iter().copied().map(bf16::from_f32).collect();
        check_packing(&Bf16Rows { data: &narrow, width }, count, width, |row, col| {
            narrow[row * width + col].to_f32()
        });
        let weight = int8::quantize(&x, [count, width]);
        let dense = weight.dequantize();
        let rows = Int8Rows::new(&weight).expect("a multiple of 32");
        check_packing(&rows, count, width, |row, col| rounded(dense[row * width + col]));
        for (block, double) in [(32, false), (64, true), (256, true)] {
            let weight = nf4::quantize(&x, [count, width], block, double);
            let dense = weight.dequantize();
            let rows = Nf4Rows::new(&weight).expect("a multiple of 32");
            check_packing(&rows, count, width, |row, col| rounded(dense[row * width + col]));
            let weight = FrozenWeight::new(Storage::Nf4(weight), [count, width], Compute::Bf16);
            check_packing(&ReadRows(&weight), count, width, |row, col| rounded(dense[row * width + col]));
        }
    }
}

#[test]
fn odd_widths_are_padded_with_zeros() {
    if !available() {
        return;
    }
    for width in [1, 7, 33, 50] {
        let x = random(width as u64, 9 * width, 1.0);
        let f32_rows = F32Rows { data: &x, stride: width, width };
        check_packing(&f32_rows, 9, width, |row, col| rounded(x[row * width + col]));
        let narrow: Vec<bf16> = x.iter().copied().map(bf16::from_f32).collect();
        check_packing(&Bf16Rows { data: &narrow, width }, 9, width, |row, col| {
            narrow[row * width + col].to_f32()
        });
        assert!(Nf4Rows::new(&nf4::quantize(&x, [9, width], 64, true)).is_none());
    }
}

/// The order of sums that the module states: pairs of products after each other.
fn chain(a: &[u16], b: &[u16], row: usize, column: usize, k: usize, start: f32) -> f64 {
    (0..k).fold(f64::from(start), |sum, k| {
        sum + f64::from(unpack_left(a, row, k)) * f64::from(unpack_right(b, k, column))
    })
}

#[test]
fn block_multiplies_and_goes_on_where_it_stopped() {
    if !available() {
        return;
    }
    let k = 5 * DEPTH;
    let [x, w] = [1, 2].map(|seed| random(seed, BLOCK * k, 1.0));
    let [x_rows, w_rows] = [&x, &w].map(|data| F32Rows { data, stride: k, width: k });
    let mut a = vec![vec![0u16; 5 * TILE]; 2];
    let mut b = a.clone();
    for half in 0..2 {
        // SAFETY: tiles are available, the buffers hold five.
        unsafe {
            left(&x_rows, half * LANES, BLOCK, 0, 5, a[half].as_mut_ptr());
            right_from_columns(&w_rows, half * LANES, BLOCK, 0, 5, b[half].as_mut_ptr());
        }
    }
    let tiles = Tiles::configure();
    let run = |cuts: &[usize], start: f32| {
        let mut c = vec![start; BLOCK * BLOCK];
        for (i, ends) in cuts.windows(2).enumerate() {
            let at = |side: &Vec<Vec<u16>>| {
                [side[0][ends[0] * TILE..].as_ptr(), side[1][ends[0] * TILE..].as_ptr()]
            };
            let add = i > 0 || start != 0.0;
            let block = Block {
                a: at(&a),
                b: at(&b),
                k_tiles: ends[1] - ends[0],
                c: c.as_mut_ptr(),
                ldc: BLOCK,
                add,
            };
            // SAFETY: operands and output are as long as the block says.
            unsafe { tiles.block(block) };
        }
        c
    };
    let whole = run(&[0, 5], 0.0);
    for (i, got) in whole.iter().enumerate() {
        let (row, column) = (i / BLOCK, i % BLOCK);
        let exact = chain(&a[row / LANES], &b[column / LANES], row % LANES, column % LANES, k, 0.0);
        assert!((f64::from(*got) - exact).abs() < 1e-5, "{row}, {column}: {got} and {exact}");
    }
    assert_eq!(whole, run(&[0, 2, 3, 5], 0.0), "cut in three");
    let shifted = run(&[0, 1, 5], 8.0);
    assert!(shifted.iter().zip(&whole).all(|(a, b)| (a - b - 8.0).abs() < 1e-5), "started at 8");
}
