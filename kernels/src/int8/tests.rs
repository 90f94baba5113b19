//! Row-wise int8 against bitsandbytes' own numbers (`tests/fixtures/bnb/int8.bin`) and its invariants.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Dequantized values of `codes_and_scales_of_worked_rows`.
const EXPECTED_BITS: [u32; 16] = [
    0x42fe0000, 0x0, 0x40000000, 0x40000000, 0x0, 0xc0000000, 0xc2fe0000, 0x42fc0000, 0x0, 0x0, 0x3e99999a,
    0x3dcb2ffa, 0xbe4d9b37, 0x3e80339b, 0xbe99999a, 0x0,
];

fn random(len: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-scale..scale)).collect()
}

#[test]
fn codes_and_scales_of_worked_rows() {
    // 127 / absmax is 1 in the first row, so that the halves show the rounding to even.
    let values =
        [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0, 126.49, 0.0, -0.0, 0.3, 0.1, -0.2, 0.25, -0.3, 1e-9];
    let matrix = quantize(&values, [2, 8]);
    assert_eq!(matrix.row_absmax, [127.0, 0.3]);
    assert_eq!(matrix.codes, [127, 0, 2, 2, 0, -2, -127, 126, 0, 0, 127, 42, -85, 106, -127, 0]);
    let bits: Vec<u32> = matrix.dequantize().iter().map(|value| value.to_bits()).collect();
    assert_eq!(bits, EXPECTED_BITS);
}

#[test]
fn bitsandbytes_matrices_are_bit_equal() {
    let mut rest =
        &include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/bnb/int8.bin"))[..];
    let mut take = |len: usize| rest.split_off(..len).unwrap();
    let words = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect::<Vec<_>>();
    for expected_shape in [[5, 123], [48, 64]] {
        let shape: [usize; 2] = [0, 1].map(|_| words(take(4))[0] as usize);
        assert_eq!(shape, expected_shape);
        let n = shape[0] * shape[1];
        let values: Vec<f32> = words(take(n * 4)).into_iter().map(f32::from_bits).collect();
        let matrix = quantize(&values, shape);
        let codes: Vec<u8> = matrix.codes.iter().map(|code| code.cast_unsigned()).collect();
        assert_eq!(codes, take(n));
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&matrix.row_absmax), words(take(shape[0] * 4)));
        assert_eq!(bits(&matrix.dequantize()), words(take(n * 4)));
    }
}

#[test]
fn rows_without_values_are_zero() {
    let matrix = quantize(&[0.0, -0.0, 1.0, -1.0], [2, 2]);
    assert_eq!(
        (matrix.codes.as_slice(), matrix.row_absmax.as_slice()),
        (&[0, 0, 127, -127][..], &[0.0, 1.0][..])
    );
    assert_eq!(matrix.dequantize()[..2], [0.0, 0.0]);
    for shape in [[0, 5], [5, 0]] {
        let empty = quantize(&[], shape);
        empty.check().unwrap();
        assert!(empty.dequantize().is_empty());
    }
}

#[test]
fn the_error_is_at_most_half_a_step() {
    for (rows, cols) in [(1, 1), (5, 123), (64, 64)] {
        let values = random(rows * cols, 1.0e3, rows as u64);
        let matrix = quantize(&values, [rows, cols]);
        matrix.check().unwrap();
        for (i, (value, back)) in values.iter().zip(matrix.dequantize()).enumerate() {
            // Half a step of absmax / 127, and three f32 roundings.
            let bound = matrix.row_absmax[i / cols] / 254.0 * (1.0 + 1e-4);
            assert!((value - back).abs() <= bound, "{rows}x{cols} value {i}: {value} became {back}");
        }
    }
}

#[test]
fn rows_dequantize_alone_as_in_the_whole() {
    let matrix = quantize(&random(6 * 35, 2.0, 4), [6, 35]);
    let whole = matrix.dequantize();
    for first in 0..6 {
        let mut rows = vec![0.0; (6 - first).min(2) * 35];
        matrix.dequantize_rows(first, &mut rows);
        assert_eq!(rows, whole[first * 35..first * 35 + rows.len()]);
    }
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let mut matrix = quantize(&[1.0; 6], [2, 3]);
    matrix.row_absmax.pop();
    assert_eq!(
        matrix.check().unwrap_err().to_string(),
        "int8 `row_absmax` of a [2, 3] matrix holds 1 entries, expected 2"
    );
}

#[test]
fn a_part_holds_the_values_of_the_whole() {
    let whole = quantize(&crate::testing::random(3, 7 * 12, 1.0), [7, 12]);
    let values = whole.dequantize();
    for cut in [Section::Rows(2..5), Section::Columns(4..9)] {
        let part = whole.cut(&cut);
        part.check().expect("parts that fit");
        let expected: Vec<f32> =
            cut.stretches([7, 12]).flat_map(|stretch| values[stretch].to_vec()).collect();
        assert_eq!(part.dequantize(), expected, "{cut:?}");
    }
}
