//! Matrices in f64, and comparisons with a bound for each element.

use seedcorn_kernels::frozen::FrozenWeight;

use crate::linear::as_bf16;

/// Values in `[-1, 1)` from a counter hash (SplitMix64); `exact` ones are what bf16 holds.
pub(crate) fn random(seed: u64, len: usize, exact: bool) -> Vec<f32> {
    let value = |at: u64| {
        let mut z = (seed << 32 | at).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
    };
    let values = (0..len as u64).map(value).collect();
    if exact { as_bf16(values) } else { values }
}

/// What rounding to bf16 adds at most, of the magnitude: half of the last of its 8 bits.
pub(crate) const BF16: f64 = 1.0 / 256.0;

/// What f32 sums add at most, of the sum of magnitudes: terms times `2^-24`, for as many as there are here.
pub(crate) const SUM: f64 = 1.0 / 65536.0;

/// A row-major matrix.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    shape: [usize; 2],
    values: Vec<f64>,
}

impl Dense {
    pub(crate) fn from(values: Vec<f64>, shape: [usize; 2]) -> Self {
        Self { shape, values }
    }

    pub(crate) fn random(seed: u64, shape: [usize; 2], exact: bool) -> Self {
        let values = random(seed, shape[0] * shape[1], exact).into_iter().map(f64::from).collect();
        Self { shape, values }
    }

    pub(crate) fn weight(weight: &FrozenWeight) -> Self {
        let shape = weight.shape();
        let mut values = vec![0.0; shape[0] * shape[1]];
        weight.read(0, &mut values);
        Self { shape, values: values.into_iter().map(f64::from).collect() }
    }

    /// The values in f32: exact for what was made from f32.
    pub(crate) fn floats(&self) -> Vec<f32> {
        self.values.iter().map(|value| *value as f32).collect()
    }

    pub(crate) fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.shape[1] + column]
    }

    pub(crate) fn map(&self, f: impl Fn(usize, f64) -> f64) -> Self {
        let values = self.values.iter().enumerate().map(|(at, value)| f(at, *value)).collect();
        Self { shape: self.shape, values }
    }

    pub(crate) fn magnitude(&self) -> Self {
        self.map(|_, value| value.abs())
    }

    pub(crate) fn scaled(&self, scale: f64) -> Self {
        self.map(|_, value| value * scale)
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        self.map(|at, value| value + other.values[at])
    }

    pub(crate) fn columns(&self, first: usize, count: usize) -> Self {
        let rows = self.values.chunks_exact(self.shape[1]);
        let values = rows.flat_map(|row| row[first..first + count].iter().copied()).collect();
        Self { shape: [self.shape[0], count], values }
    }

    pub(crate) fn transposed(&self) -> Self {
        let [rows, columns] = self.shape;
        let values = (0..columns).flat_map(|column| (0..rows).map(move |row| self.at(row, column))).collect();
        Self { shape: [columns, rows], values }
    }

    pub(crate) fn times(&self, other: &Self) -> Self {
        self.times_transposed(&other.transposed())
    }

    pub(crate) fn transposed_times(&self, other: &Self) -> Self {
        self.transposed().times_transposed(&other.transposed())
    }

    pub(crate) fn times_transposed(&self, other: &Self) -> Self {
        assert_eq!(self.shape[1], other.shape[1], "the inner axes differ");
        let inner = self.shape[1];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let rows = self.values.chunks_exact(inner);
        let values = rows.flat_map(|a| other.values.chunks_exact(inner).map(move |b| dot(a, b))).collect();
        Self { shape: [self.shape[0], other.shape[0]], values }
    }
}

/// What a kernel computed beside what it should have.
pub(crate) struct Compared {
    name: &'static str,
    pub(crate) got: Vec<f32>,
    expected: Vec<f64>,
    bound: Vec<f64>,
    columns: usize,
}

impl Compared {
    pub(crate) fn new(name: &'static str, expected: Dense, bound: &Dense) -> Self {
        let columns = expected.shape[1];
        Self { name, got: Vec::new(), expected: expected.values, bound: bound.values.clone(), columns }
    }

    /// Compares every element; the message names the first five that are off.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.got.len() != self.expected.len() {
            return Err(format!(
                "`{}`: {} elements, expected {}",
                self.name,
                self.got.len(),
                self.expected.len()
            ));
        }
        let off: Vec<String> = (0..self.got.len())
            .filter(|at| {
                let error = (f64::from(self.got[*at]) - self.expected[*at]).abs();
                // A NaN is never inside a bound.
                error.partial_cmp(&self.bound[*at]).is_none_or(std::cmp::Ordering::is_gt)
            })
            .map(|at| {
                let (row, column) = (at / self.columns, at % self.columns);
                let (got, expected, bound) = (self.got[at], self.expected[at], self.bound[at]);
                format!("[{row}, {column}] is {got}, expected {expected} +- {bound:.1e}")
            })
            .collect();
        if off.is_empty() {
            return Ok(());
        }
        let first = off[..off.len().min(5)].join("; ");
        Err(format!("`{}`: {} of {} elements are off: {first}", self.name, off.len(), self.got.len()))
    }
}
