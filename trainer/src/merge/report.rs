//! What a merge has to show: how far logits are apart, and whether that is explained.

use std::path::PathBuf;

use super::{Merge, RoundTrip, Target};
use crate::error::Explained;
use crate::export::ExportDtype;
use crate::recipe::Quantize;

/// Largest difference of logits that f32 explains, relative to the largest logit.
///
/// `W x + s B (A x)` and `(W + s B A) x` differ by the rounding of sums, a unit of 2^-24 that grows like the
/// root of a sum's length in each layer and at most adds up over the layers: 100 layers of width 28672 make
/// 100 * sqrt(28672) * 2^-24 = 1e-3, with a factor 2 to spare.
const F32_TOLERANCE: f32 = 2e-3;

/// Two sets of logits compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Largest |difference|; infinite where one side is not finite.
    pub max: f32,
    /// Largest |logit| of the first set.
    pub scale: f32,
    /// Tokens after which both sets have the same likeliest next token.
    pub same: usize,
    /// Tokens compared.
    pub tokens: usize,
}

/// The weights that were not chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rival {
    /// How the logits would have differed with them.
    Measured(Difference),
    /// The base is stored quantized: there are no others.
    Same,
    /// Nothing was quantized in training: there is nothing to choose.
    None,
}

/// A merged model that was loaded back.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The folder.
    pub path: PathBuf,
    /// Number type of its weights.
    pub dtype: ExportDtype,
    /// Files of weights, and their size in bytes.
    pub files: (usize, u64),
    /// The logits of the folder against those of base and adapter.
    pub read_back: Difference,
    /// What the read back difference may be, relative to the largest logit.
    pub tolerance: f32,
    /// What was merged into.
    pub target: Target,
    /// Quantization of the weights that were or were not chosen.
    pub round_trip: RoundTrip,
    /// The other choice of weights against this one.
    pub rival: Rival,
}

impl Difference {
    /// Compares two `[tokens, vocab]` sets.
    pub fn of(first: &[f32], second: &[f32], vocab: usize) -> Self {
        let pairs = || first.iter().zip(second);
        let finite = first.len() == second.len() && pairs().all(|(a, b)| a.is_finite() && b.is_finite());
        let max = pairs().fold(0.0, |max: f32, (a, b)| max.max((a - b).abs()));
        let rows = || first.chunks(vocab).zip(second.chunks(vocab));
        Self {
            max: if finite { max } else { f32::INFINITY },
            scale: first.iter().fold(0.0, |max, logit| max.max(logit.abs())),
            same: rows().filter(|(a, b)| best(a) == best(b)).count(),
            tokens: rows().count(),
        }
    }

    /// Returns the largest difference relative to the largest logit.
    pub fn relative(&self) -> f32 {
        if self.max == 0.0 { 0.0 } else { self.max / self.scale }
    }

    fn text(&self) -> String {
        let Self { max, scale, same, tokens } = self;
        format!(
            "max |difference| of the logits {max:.3e} ({:.2e} of the largest, {scale:.3}), same next token after \
             {same} of {tokens}",
            self.relative()
        )
    }
}

fn best(row: &[f32]) -> Option<usize> {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)))
}

impl Merged {
    pub(super) fn new(
        merge: &Merge<'_>,
        read_back: Difference,
        rival: Rival,
        round_trip: RoundTrip,
    ) -> std::io::Result<Self> {
        let mut files = (0, 0);
        for entry in fs_err::read_dir(merge.path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(".safetensors") {
                files = (files.0 + 1, files.1 + entry.metadata()?.len());
            }
        }
        let tolerance = match merge.dtype {
            ExportDtype::F32 => F32_TOLERANCE,
            ExportDtype::Bf16 => bf16_bound(merge.base.linear_modules().len()),
        };
        let path = merge.path.to_owned();
        let (dtype, target) = (merge.dtype, merge.target);
        Ok(Self { path, dtype, files, read_back, tolerance, target, round_trip, rival })
    }

    /// Refuses an f32 model whose logits are not those of base and adapter.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let finite = self.read_back.max.is_finite();
        if finite && (self.dtype == ExportDtype::Bf16 || self.read_back.relative() <= self.tolerance) {
            return Ok(());
        }
        let message = format!(
            "the merged model in `{}` does not answer as base and adapter do: {}, at most {:.1e} is expected",
            self.path.display(),
            self.read_back.text(),
            self.tolerance
        );
        Err(Explained::new(message)
            .with_hint("use the base with the adapter instead, and report this with both")
            .into())
    }

    /// Describes the merge; the last line says what the choice of weights means.
    pub fn lines(&self) -> Vec<String> {
        let (files, bytes) = self.files;
        let dtype = self.dtype.config_name();
        let within = if self.read_back.relative() <= self.tolerance { "within" } else { "above" };
        let noun = if files == 1 { "file" } else { "files" };
        let mut lines = vec![
            format!(
                "merged: {} ({dtype}, {files} {noun}, {:.1} MB)",
                self.path.display(),
                bytes as f64 / 1e6
            ),
            format!(
                "read back: {}; {within} the {:.1e} that {dtype} explains",
                self.read_back.text(),
                self.tolerance
            ),
        ];
        let format = match self.round_trip {
            RoundTrip { quantize: Quantize::Int8, .. } => "int8",
            RoundTrip { double_quant: true, .. } => "nf4 with double quantization",
            _ => "nf4",
        };
        lines.extend(match (&self.rival, self.target) {
            (Rival::Measured(difference), Target::Full) => Some(format!(
                "merged into the full weights; into the dequantized ones ({format}): {}",
                difference.text()
            )),
            (Rival::Measured(difference), Target::Dequantized) => Some(format!(
                "merged into the dequantized weights ({format}); into the full ones: {}",
                difference.text()
            )),
            (Rival::Same, _) => Some(
                "the base is stored quantized: its full and its dequantized weights are the same".to_owned(),
            ),
            (Rival::None, _) => None,
        });
        lines
    }
}

/// Returns the difference of logits that rounding `layers` linear layers to bf16 explains, relative to the
/// largest logit: each adds an independent error of at most 2^-9 of its output. The factor of 4 covers the
/// embedding, the head, and small models whose largest logit is not far above the others.
fn bf16_bound(layers: usize) -> f32 {
    4.0 * 2.0_f32.powi(-9) * (layers as f32).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_measured_row_by_row() {
        let difference = Difference::of(&[1.0, -4.0, 0.0, 2.0], &[1.5, -4.0, 3.0, 2.0], 2);
        assert_eq!(difference, Difference { max: 3.0, scale: 4.0, same: 1, tokens: 2 });
        assert_eq!(difference.relative(), 0.75);
    }

    #[test]
    fn what_is_not_finite_is_infinitely_far() {
        assert_eq!(Difference::of(&[1.0, 0.0], &[1.0, f32::NAN], 2).max, f32::INFINITY);
        assert_eq!(Difference::of(&[1.0, 0.0], &[1.0], 2).max, f32::INFINITY);
        assert_eq!(Difference::of(&[0.0; 2], &[0.0; 2], 2).relative(), 0.0);
    }

    fn merged(dtype: ExportDtype, max: f32) -> Merged {
        Merged {
            path: "out".into(),
            dtype,
            files: (1, 2_000_000),
            read_back: Difference { max, scale: 10.0, same: 7, tokens: 8 },
            tolerance: 2e-3,
            target: Target::Full,
            round_trip: RoundTrip::QLORA,
            rival: Rival::Same,
        }
    }

    #[test]
    fn f32_must_agree_and_bf16_must_be_finite() {
        merged(ExportDtype::F32, 0.02).check().unwrap();
        let fault = merged(ExportDtype::F32, 0.021).check().unwrap_err().to_string();
        assert!(fault.contains("max |difference| of the logits 2.100e-2"), "{fault}");
        let above = merged(ExportDtype::Bf16, 0.03);
        above.check().unwrap();
        assert!(above.lines()[1].contains("; above the"), "{:?}", above.lines());
        merged(ExportDtype::Bf16, f32::INFINITY).check().unwrap_err();
    }
}
