//! The values of one tensor on their way from a file into the storage that a model keeps.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use half::bf16;
use rayon::prelude::*;
use seedcorn_kernels::frozen::{Compute, Storage};
use seedcorn_kernels::section::Section;

use crate::weights::{Plain, STRETCH_UNIT};

/// A dense tensor, decoded a stretch at a time; remembers whether all that was read is finite.
pub(super) struct Values<'a> {
    plain: Plain<'a>,
    file: PathBuf,
    broken: AtomicBool,
}

impl<'a> Values<'a> {
    /// Takes a tensor of `file`.
    pub(super) fn new(plain: Plain<'a>, file: PathBuf) -> Self {
        Self { plain, file, broken: AtomicBool::new(false) }
    }

    /// Returns the file that holds the tensor.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Decodes a stretch; see [`Plain::read`].
    pub(super) fn read(&self, start: usize, out: &mut [f32]) {
        self.plain.read(start, out);
        if !all_finite(out) {
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    /// Decodes a stretch of a part of a matrix of `shape`, as if the part were all there is. `start` and the length are as
    /// those of [`Plain::read`], or whole rows of the part.
    pub(super) fn read_section(
        &self,
        shape: [usize; 2],
        part: Option<&Section>,
        start: usize,
        out: &mut [f32],
    ) {
        let columns = match part {
            None => return self.read(start, out),
            Some(Section::Rows(rows)) => return self.read(rows.start * shape[1] + start, out),
            Some(Section::Columns(columns)) => columns,
        };
        let mut wider = Vec::new();
        let (mut at, mut rest) = (start, out);
        while !rest.is_empty() {
            let (row, first) = (at / columns.len(), columns.start + at % columns.len());
            let (now, tail) = rest.split_at_mut(rest.len().min(columns.end - first));
            // A row begins with a block and ends with one; within it, blocks are not to be cut.
            let from = first / STRETCH_UNIT * STRETCH_UNIT;
            let to = (first + now.len()).next_multiple_of(STRETCH_UNIT).min(shape[1]);
            wider.resize(to - from, 0.0);
            self.read(row * shape[1] + from, &mut wider);
            now.copy_from_slice(&wider[first - from..][..now.len()]);
            at += now.len();
            rest = tail;
        }
    }

    /// Returns the first value that is not finite, if one was read.
    pub(super) fn first_broken(&self) -> Option<(usize, f32)> {
        if !self.broken.load(Ordering::Relaxed) {
            return None;
        }
        let mut values = vec![0.0; self.plain.len()];
        self.plain.read(0, &mut values);
        values.iter().copied().enumerate().find(|(_, value)| !value.is_finite())
    }
}

/// Whether no value is NaN or infinite: `0 * x` is zero for all others, and sums of zeros stay zero. Sixteen sums,
/// so that the compiler may add vectors.
fn all_finite(values: &[f32]) -> bool {
    let mut sums = [0.0f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * 0.0;
        }
    }
    sums.iter().all(|&sum| sum == 0.0) && rest.iter().all(|value| value.is_finite())
}

/// Values that one task decodes.
const TASK_VALUES: usize = 64 * STRETCH_UNIT;

/// Keeps values as they are, or rounded to bf16, without a copy of the whole in f32.
pub(super) fn dense_storage(
    shape: [usize; 2],
    compute: Compute,
    read: impl Fn(usize, &mut [f32]) + Sync,
) -> Storage {
    let len = shape[0] * shape[1];
    match compute {
        Compute::F32 => {
            let mut values = vec![0.0; len];
            let stretches = values.par_chunks_mut(TASK_VALUES).enumerate();
            stretches.for_each(|(task, out)| read(task * TASK_VALUES, out));
            Storage::F32(values)
        }
        Compute::Bf16 => {
            let mut values = vec![bf16::ZERO; len];
            let stretches = values.par_chunks_mut(TASK_VALUES).enumerate();
            stretches.for_each_init(
                || vec![0.0; TASK_VALUES.min(len)],
                |stretch, (task, out)| {
                    let stretch = &mut stretch[..out.len()];
                    read(task * TASK_VALUES, stretch);
                    out.iter_mut().zip(stretch).for_each(|(out, value)| *out = narrow(*value));
                },
            );
            Storage::Bf16(values)
        }
    }
}

/// As [`dense_storage`], of some rows, which `read(row, out)` gives one at a time.
pub(super) fn dense_rows(
    rows: Range<usize>,
    width: usize,
    compute: Compute,
    read: impl Fn(usize, &mut [f32]) + Sync,
) -> Storage {
    let len = rows.len() * width;
    match compute {
        Compute::F32 => {
            let mut values = vec![0.0; len];
            let all = values.par_chunks_mut(width.max(1)).zip(rows).with_min_len(64);
            all.for_each(|(out, row)| read(row, out));
            Storage::F32(values)
        }
        Compute::Bf16 => {
            let mut values = vec![bf16::ZERO; len];
            let all = values.par_chunks_mut(width.max(1)).zip(rows).with_min_len(64);
            all.for_each_init(
                || vec![0.0; width],
                |values, (out, row)| {
                    read(row, values);
                    out.iter_mut().zip(values).for_each(|(out, value)| *out = narrow(*value));
                },
            );
            Storage::Bf16(values)
        }
    }
}

/// Rounds a finite value to the nearest bf16, ties to even. `half` asks for NaN first, which keeps the compiler
/// from using vectors.
fn narrow(value: f32) -> bf16 {
    let bits = value.to_bits();
    bf16::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_rounds_as_half_does() {
        for bits in (0..=u32::MAX).step_by(4099) {
            let value = f32::from_bits(bits);
            if value.is_finite() {
                assert_eq!(narrow(value), bf16::from_f32(value), "{value}");
            }
        }
    }

    #[test]
    fn every_place_of_a_broken_value_is_seen() {
        for len in [1, 15, 16, 17, 40] {
            for place in 0..len {
                for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = vec![f32::MAX; len];
                    assert!(all_finite(&values));
                    values[place] = broken;
                    assert!(!all_finite(&values), "{broken} at {place} of {len}");
                }
            }
        }
    }
}
