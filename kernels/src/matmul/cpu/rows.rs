//! One or two rows of `a`: each column of `b` is read once, as it is stored, and used at once.
//!
//! # Limits
//! Two floating point operations a stored value: memory is the limit, and what counts is that no value is written
//! before it is used, and that small products start no other thread.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::super::{Mode, Operand, View, ViewMut};
use super::SharedOut;
use crate::frozen::{Compute, FrozenWeight, Storage};
use crate::int8::{self, Int8};
use crate::isa::{Tier, fma, tiered};
use crate::nf4::RowDots;
use crate::vector;

/// Columns whose products are computed together.
const STRETCH: usize = 32;

/// Products of one task: some ten microseconds of work, so that handing it to another thread pays.
const TASK_PRODUCTS: usize = 1 << 17;

pub(super) fn matmul(tier: Tier, m: usize, n: usize, k: usize, a: View, b: &Operand, c: ViewMut, mode: Mode) {
    let ViewMut { data, stride: ldc } = c;
    let out = SharedOut::new(data.as_mut_ptr());
    let rows: Vec<&[f32]> = (0..m).map(|i| &a.data[i * a.stride..][..k]).collect();
    let stored = match b {
        Operand::WeightTransposed(weight) => Some((*weight, weight.storage())),
        Operand::Dense { .. } | Operand::Transposed { .. } | Operand::Weight(_) => None,
    };
    let stored = stored.as_ref().map(|(weight, stored)| (*weight, &**stored));
    let columns = Columns::new(tier, b, stored, &rows);
    let task = |range: Range<usize>| {
        let mut unpacked = Vec::new();
        for first in range.clone().step_by(STRETCH) {
            let mut sums = [0.0f32; STRETCH];
            let sums = &mut sums[..STRETCH.min(range.end - first)];
            columns.unpack(k, first, sums.len(), &mut unpacked);
            for (i, row) in rows.iter().enumerate() {
                columns.dots(tier, i, row, first, &unpacked, sums);
                for (j, &sum) in (first..).zip(&*sums) {
                    // SAFETY: `super::super::matmul` checked that `c` holds row `i` and column `j`; each task
                    // has its own columns.
                    unsafe {
                        let out = out.at(i * ldc + j);
                        *out = if mode == Mode::Add { *out + sum } else { sum };
                    }
                }
            }
        }
    };
    // Where a task begins changes no bit: each column is summed alone.
    let task_columns = (TASK_PRODUCTS / k.max(1)).next_multiple_of(STRETCH).max(STRETCH);
    if n <= task_columns {
        return task(0..n);
    }
    (0..n.div_ceil(task_columns)).into_par_iter().for_each(|number| {
        task(number * task_columns..n.min((number + 1) * task_columns));
    });
}

/// The columns of the right operand, by the way they are stored.
enum Columns<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    Int8(&'a Int8, Compute),
    Nf4(RowDots<'a>),
    /// Any other: unpacked before it is multiplied.
    Packed(&'a Operand<'a>),
}

impl<'a> Columns<'a> {
    fn new(
        tier: Tier,
        b: &'a Operand<'a>,
        stored: Option<(&FrozenWeight, &'a Storage)>,
        rows: &[&[f32]],
    ) -> Self {
        let weight = |(weight, stored): (&FrozenWeight, &'a Storage)| match stored {
            Storage::F32(values) if weight.compute() == Compute::F32 => Some(Self::F32(values)),
            Storage::Bf16(values) => Some(Self::Bf16(values)),
            Storage::Int8(int8) => Some(Self::Int8(int8, weight.compute())),
            Storage::Nf4(nf4) => {
                RowDots::new(tier, nf4, rows, weight.compute() == Compute::Bf16).map(Self::Nf4)
            }
            Storage::F32(_) => None,
            #[cfg(feature = "cube")]
            Storage::Device(_) => unreachable!("the CPU's ops take host weights"),
        };
        match b {
            Operand::Transposed { data, .. } => Self::F32(data),
            Operand::WeightTransposed(_) => stored.and_then(weight).unwrap_or(Self::Packed(b)),
            Operand::Dense { .. } | Operand::Weight(_) => Self::Packed(b),
        }
    }

    /// Unpacks columns that cannot be multiplied as they are.
    fn unpack(&self, k: usize, first: usize, count: usize, out: &mut Vec<f32>) {
        if let Self::Packed(operand) = self {
            out.resize(count * k, 0.0);
            for (j, column) in (first..).zip(out.chunks_exact_mut(k.max(1))) {
                operand.pack(0..k, j, 1, 1, column);
            }
        }
    }

    /// Multiplies row `i` of the left operand with the columns from `first` on.
    fn dots(&self, tier: Tier, i: usize, row: &[f32], first: usize, unpacked: &[f32], sums: &mut [f32]) {
        let range = first * row.len()..(first + sums.len()) * row.len();
        match self {
            Self::F32(values) => f32_dots(tier, row, &values[range], sums),
            Self::Bf16(values) => bf16_dots(tier, row, &values[range], sums),
            Self::Int8(matrix, compute) => {
                let scales = &matrix.row_absmax[first..];
                int8_dots(tier, row, &matrix.codes[range], scales, *compute == Compute::Bf16, sums);
            }
            Self::Nf4(dots) => dots.compute(i, first, sums),
            Self::Packed(_) => f32_dots(tier, row, unpacked, sums),
        }
    }
}

tiered! {
    fn f32_dots(x: &[f32], columns: &[f32], sums: &mut [f32]) = f32_body;
}

#[inline(always)]
fn f32_body<const FMA: bool, const WIDTH: usize>(x: &[f32], columns: &[f32], sums: &mut [f32]) {
    for (j, sum) in sums.iter_mut().enumerate() {
        *sum = dot_with::<FMA, _>(x, &columns[j * x.len()..][..x.len()], |value| value);
    }
}

tiered! {
    fn bf16_dots(x: &[f32], columns: &[bf16], sums: &mut [f32]) = bf16_body;
}

#[inline(always)]
fn bf16_body<const FMA: bool, const WIDTH: usize>(x: &[f32], columns: &[bf16], sums: &mut [f32]) {
    for (j, sum) in sums.iter_mut().enumerate() {
        let widen = |value: bf16| f32::from_bits(u32::from(value.to_bits()) << 16);
        *sum = dot_with::<FMA, _>(x, &columns[j * x.len()..][..x.len()], widen);
    }
}

tiered! {
    fn int8_dots(
        x: &[f32], columns: &[i8], scales: &[f32], round: bool, sums: &mut [f32],
    ) = int8_body;
}

#[inline(always)]
fn int8_body<const FMA: bool, const WIDTH: usize>(
    x: &[f32],
    columns: &[i8],
    scales: &[f32],
    round: bool,
    sums: &mut [f32],
) {
    for (j, (sum, &absmax)) in sums.iter_mut().zip(scales).enumerate() {
        let widen = |code: i8| f32::from(code) * absmax * int8::reference::RECIPROCAL;
        let codes = &columns[j * x.len()..][..x.len()];
        *sum = if round {
            dot_with::<FMA, _>(x, codes, |code| round_to_bf16(widen(code)))
        } else {
            dot_with::<FMA, _>(x, codes, widen)
        };
    }
}

/// Rounds a finite value to the nearest bf16, ties to even.
#[inline(always)]
fn round_to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// Partial sums, as in [`vector::dot`].
const LANES: usize = 32;

/// Computes `sum_i x[i] * widen(y[i])` in [`LANES`] partial sums.
#[inline(always)]
fn dot_with<const FMA: bool, T: Copy>(x: &[f32], y: &[T], widen: impl Fn(T) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (y_chunks, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        vector::prefetch(y.as_ptr());
        for lane in 0..LANES {
            sums[lane] = fma::<FMA>(x[lane], widen(y[lane]), sums[lane]);
        }
    }
    for (sum, (x, y)) in sums.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *sum = fma::<FMA>(*x, widen(*y), *sum);
    }
    vector::fold(&mut sums)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{int8, nf4};

    fn random(len: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn weights(values: &[f32], shape: [usize; 2]) -> Vec<FrozenWeight> {
        let narrow = values.iter().map(|value| bf16::from_f32(*value)).collect();
        let mut storages = vec![
            (Storage::F32(values.to_vec()), Compute::F32),
            (Storage::F32(values.to_vec()), Compute::Bf16),
            (Storage::Bf16(narrow), Compute::Bf16),
        ];
        for compute in [Compute::F32, Compute::Bf16] {
            storages.push((Storage::Int8(int8::quantize(values, shape)), compute));
            for (block_size, double) in [(32, true), (64, true), (64, false), (128, true), (256, false)] {
                storages.push((Storage::Nf4(nf4::quantize(values, shape, block_size, double)), compute));
            }
        }
        storages.into_iter().map(|(storage, compute)| FrozenWeight::new(storage, shape, compute)).collect()
    }

    fn run(tier: Tier, m: usize, x: &[f32], weight: &FrozenWeight, y: &mut [f32], mode: Mode) {
        let [n, k] = weight.shape();
        let (a, c) = (View { data: x, stride: k }, ViewMut { data: y, stride: n });
        matmul(tier, m, n, k, a, &Operand::WeightTransposed(weight), c, mode);
    }

    /// The values are those that `FrozenWeight::read` gives, to the last bit; what differs is the order of the
    /// sum. Measured: at most 7.9e-8 of the sum of magnitudes, on any tier; the bound is four times that.
    #[test]
    fn every_storage_on_every_tier_is_the_sum_of_what_it_reads() {
        let mut worst = 0.0f64;
        for (seed, [n, k]) in [[1, 64], [33, 128], [5, 123], [70, 576], [67, 96], [3, 0], [0, 64], [9, 1088]]
            .into_iter()
            .enumerate()
        {
            let (values, x) = (random(n * k, seed as u64), random(2 * k, 7));
            for weight in weights(&values, [n, k]) {
                let mut read = vec![0.0; n * k];
                weight.read(0, &mut read);
                for (tier, m) in Tier::available().into_iter().flat_map(|tier| [(tier, 1), (tier, 2)]) {
                    for mode in [Mode::Write, Mode::Add] {
                        let mut y = vec![0.5; m * n];
                        run(tier, m, &x, &weight, &mut y, mode);
                        for (at, &y) in y.iter().enumerate() {
                            let (i, j) = (at / n, at % n);
                            let products = x[i * k..][..k].iter().zip(&read[j * k..][..k]);
                            let products = products.map(|(x, w)| f64::from(*x) * f64::from(*w));
                            let (sum, magnitude) =
                                products.fold((0.0, 1.0), |(sum, all), one| (sum + one, all + one.abs()));
                            let start = if mode == Mode::Add { 0.5 } else { 0.0 };
                            let error = (f64::from(y) - sum - start).abs() / magnitude;
                            worst = worst.max(error);
                            assert!(error <= 3.2e-7, "{tier:?} {n}x{k} row {i} column {j}: {error:e}");
                        }
                    }
                }
            }
        }
        println!("largest error: {worst:e} of the sum of magnitudes");
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads_or_columns() {
        let [n, k] = [1000, 576];
        let x = random(k, 1);
        for weight in weights(&random(n * k, 2), [n, k]) {
            for tier in Tier::available() {
                let with = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let mut y = vec![0.0; n];
                    pool.install(|| run(tier, 1, &x, &weight, &mut y, Mode::Write));
                    y.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
                };
                let one = with(1);
                assert!(one == with(2) && one == with(3), "{tier:?}");
            }
        }
    }
}
