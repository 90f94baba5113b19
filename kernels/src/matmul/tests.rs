//! The CPU product against the definition, on every tier of this machine.

use super::reference::matmul_reference;
use super::*;
use crate::frozen::{Compute, FrozenWeight, Storage};
use crate::isa::Tier;
use crate::nf4;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Sums of `k` products of values below 1 err by at most `k` roundings of a sum that stays below `k`; the
/// measured worst case over these shapes is 3e-6 at k = 300.
fn assert_close(got: &[f32], want: &[f32], k: usize) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let bound = 1e-7 * k as f32 + 1e-6 * want.abs();
        assert!((got - want).abs() <= bound, "element {i}: {got} beside {want} (k = {k})");
    }
}

fn check(m: usize, n: usize, k: usize, b: &Operand) {
    let a = random(m * k, 1);
    for mode in [Mode::Write, Mode::Add] {
        let start = random(m * n, 2);
        let mut want = start.clone();
        let a = View { data: &a, stride: k };
        matmul_reference(m, n, k, a, b, ViewMut { data: &mut want, stride: n }, mode);
        for tier in Tier::available() {
            let mut got = start.clone();
            cpu::matmul(tier, m, n, k, a, b, ViewMut { data: &mut got, stride: n }, mode);
            assert_close(&got, &want, k);
        }
    }
}

const SHAPES: [[usize; 3]; 12] = [
    [0, 5, 7],
    [1, 1, 1],
    [1, 33, 64],
    [2, 70, 129],
    [5, 123, 17],
    [14, 32, 64],
    [15, 31, 300],
    [29, 65, 128],
    [70, 16, 96],
    [3, 4, 0],
    [7, 49, 13],
    [11, 60, 2200],
];

#[test]
fn dense_and_transposed_equal_the_definition() {
    for [m, n, k] in SHAPES {
        let b = random(k * n, 3);
        check(m, n, k, &Operand::Dense { data: &b, stride: n, shape: [k, n] });
        check(m, n, k, &Operand::Transposed { data: &b, shape: [k, n] });
    }
}

#[test]
fn frozen_weights_equal_the_definition_in_every_storage() {
    let [m, out, width] = [9, 67, 96];
    let values = random(out * width, 4);
    let shape = [out, width];
    let storages = [
        Storage::F32(values.clone()),
        Storage::Bf16(values.iter().map(|v| half::bf16::from_f32(*v)).collect()),
        Storage::Nf4(nf4::quantize(&values, shape, 64, true)),
        Storage::Nf4(nf4::quantize(&values, shape, 64, false)),
    ];
    for storage in storages {
        let weight = FrozenWeight::new(storage, shape, Compute::F32);
        check(m, out, width, &Operand::WeightTransposed(&weight));
        check(m, width, out, &Operand::Weight(&weight));
    }
}

/// The tiles multiply what was rounded to bf16, and sum in f32: against the definition on rounded operands the
/// error is that of the sums, measured at most 2e-6 at k = 300.
#[cfg(target_arch = "x86_64")]
#[test]
fn tiles_equal_the_definition_on_rounded_operands() {
    use cpu::{Output, Segment, Start, TileUnit, Unit, product};
    let Some(unit) = TileUnit::new() else { return };
    let rounded = |len, seed| {
        let mut values = random(len, seed);
        crate::frozen::round_to_bf16(&mut values);
        values
    };
    let shapes = SHAPES.into_iter().chain([[33, 40, 700], [300, 70, 96], [64, 32, 2000]]);
    for [m, n, k] in shapes {
        let (a, b, more) = (rounded(m * k, 1), rounded(k * n, 3), rounded(m * 5, 4));
        let (start, bias, last) = (random(m * n, 2), random(n, 5), rounded(5 * n, 6));
        let operands = [
            Operand::Dense { data: &b, stride: n, shape: [k, n] },
            Operand::Transposed { data: &b, shape: [k, n] },
        ];
        let last = Operand::Dense { data: &last, stride: n, shape: [5, n] };
        for b in &operands {
            let mut want: Vec<f32> = start.iter().enumerate().map(|(i, v)| v + bias[i % n]).collect();
            let mut add = |k, a, b| {
                let c = ViewMut { data: &mut want, stride: n };
                matmul_reference(m, n, k, View { data: a, stride: k }, b, c, Mode::Add);
            };
            add(k, &a, b);
            add(5, &more, &last);
            let (a, more) = (View { data: &a, stride: k }, View { data: &more, stride: 5 });
            let mut got = vec![f32::NAN; m * n];
            let rows = Some(View { data: &start, stride: n });
            let c = ViewMut { data: &mut got, stride: n };
            let output = Output { m, n, c, start: Start::From { rows, bias: Some(&bias) } };
            let (a, more) = (unit.left(m, k, a), unit.left(m, 5, more));
            let segments = [Segment { left: &a, right: b }, Segment { left: &more, right: &last }];
            product(unit, output, &segments);
            assert_close(&got, &want, k + 25);
        }
    }
}

/// One chain of multiply-adds over rising `k` for each element, from what is in `c`.
fn chains(tier: Tier, [m, n, k]: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32]) {
    let fused = tier != Tier::Portable || crate::isa::PORTABLE_FMA;
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = (0..k).fold(c[i * n + j], |sum, p| {
                let (x, y) = (a[i * k + p], b[p * n + j]);
                if fused { x.mul_add(y, sum) } else { sum + x * y }
            });
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Whatever the tiles, panels, cuts and the way an operand is read: the bits are those of the plain chain.
#[test]
fn every_way_of_multiplying_gives_the_bits_of_one_chain() {
    use cpu::{Left, Unit, VectorUnit, small_product};
    for [m, n, k] in [[1, 16, 1], [13, 80, 70], [9, 112, 131], [3, 64, 2200]] {
        let (a, b, start) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
        let columns: Vec<f32> = (0..k * m).map(|at| a[at % m * k + at / m]).collect();
        for tier in Tier::available() {
            let (mut zero, mut kept) = (vec![0.0; m * n], start.clone());
            chains(tier, [m, n, k], &a, &b, &mut zero);
            chains(tier, [m, n, k], &a, &b, &mut kept);
            for (mode, want) in [(Mode::Write, &zero), (Mode::Add, &kept)] {
                let want = bits(want);
                for left in [Left::Rows(&a, k), Left::Columns(&columns, m)] {
                    let mut got = start.clone();
                    small_product(tier, left, &b, &mut got, [m, n, k], mode);
                    assert!(bits(&got) == want, "small {m} {n} {k} on {}", tier.name());
                }
                if m > FEW_ROWS {
                    let mut got = start.clone();
                    let right = Operand::Dense { data: &b, stride: n, shape: [k, n] };
                    let c = ViewMut { data: &mut got, stride: n };
                    cpu::matmul(tier, m, n, k, View { data: &a, stride: k }, &right, c, mode);
                    assert!(bits(&got) == want, "{m} {n} {k} on {}", tier.name());
                }
            }
            let unit = VectorUnit::new(tier, Compute::F32);
            let left = unit.left(m, k, View { data: &a, stride: k });
            let mut got = start.clone();
            let mut c = ViewMut { data: &mut got, stride: n };
            let done = unit.few_rows(m, n, k, &left, View { data: &b, stride: n }, &mut c);
            assert_eq!(done, tier != Tier::Portable, "{}", tier.name());
            assert!(bits(&got) == bits(if done { &zero } else { &start }), "few {m} {n} {k}");
        }
    }
}

#[test]
fn strided_views_touch_only_their_own_columns() {
    let (a, b) = (random(3 * 10, 5), random(4 * 6, 6));
    let mut c = [7.0f32; 3 * 9];
    let b = Operand::Dense { data: &b, stride: 6, shape: [4, 6] };
    matmul(
        3,
        6,
        4,
        View { data: &a[2..], stride: 10 },
        &b,
        ViewMut { data: &mut c[1..], stride: 9 },
        Mode::Write,
    );
    for row in c.chunks_exact(9) {
        assert_eq!([row[0], row[7], row[8]], [7.0; 3]);
        assert!(row[1..7].iter().all(|value| *value != 7.0));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let [m, n, k] = [150, 200, 130];
    let (a, b) = (random(m * k, 7), random(k * n, 8));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut c = vec![0.0f32; m * n];
            let b = Operand::Transposed { data: &b, shape: [k, n] };
            matmul(
                m,
                n,
                k,
                View { data: &a, stride: k },
                &b,
                ViewMut { data: &mut c, stride: n },
                Mode::Write,
            );
            c.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        })
    };
    assert!(run(1) == run(2) && run(1) == run(3));
}
