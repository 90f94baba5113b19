//! Which part of every layer a rank holds, when several hold one model together.
//!
//! Query, key and value heads, the feed-forward layer's inner columns and the vocabulary are shared out, each rank taking
//! neighbours: the projections into them are cut by rows, those out of them by columns. Norms are everywhere.
//!
//! # Source
//! Shoeybi et al., Megatron-LM (2019), arXiv:1909.08053, section 3.

use std::ops::Range;

use seedcorn_kernels::nf4;
use seedcorn_kernels::section::Section;

use super::family::{LINEARS, Linear};
use super::load::NF4_BLOCK;
use super::spec::ModelSpec;
use crate::parallel::part;

/// One of several equal slices of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which one.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

/// A model that cannot be cut into so many slices.
#[derive(Debug, thiserror::Error)]
#[error("`parallel.tensor` ({tensor}) cannot cut this model: {}", reasons.join("; "))]
pub struct SliceError {
    tensor: usize,
    /// What does not divide.
    reasons: Vec<String>,
    /// Numbers of slices that would do.
    degrees: Vec<usize>,
}

impl SliceError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let shown: Vec<String> = self.degrees.iter().map(usize::to_string).collect();
        match shown.split_last() {
            Some((last, first)) if !first.is_empty() => {
                format!("set `parallel.tensor` to {} or {last}", first.join(", "))
            }
            _ => "this model cannot be cut: set `parallel.tensor = 1`, and more ranks with `parallel.data`"
                .to_owned(),
        }
    }
}

impl Slice {
    /// A model that is not cut.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Whether the model is cut.
    pub fn is_part(self) -> bool {
        self.of > 1
    }

    /// Whether this slice gives what must be added once: residuals, and biases of layers that are cut by columns.
    pub fn is_first(self) -> bool {
        self.index == 0
    }

    /// Returns the rows of the embedding and of the head; slices may differ by one.
    pub fn vocabulary(self, spec: &ModelSpec) -> Range<usize> {
        part(self.index, self.of, spec.vocab_size)
    }

    /// Returns which part of a linear layer this slice has; none where it is whole.
    pub fn section(self, spec: &ModelSpec, linear: Linear) -> Option<Section> {
        let (out, width) = spec.linear_shape(linear);
        self.is_part().then(|| match linear {
            Linear::Q | Linear::K | Linear::V | Linear::Gate | Linear::Up => {
                Section::Rows(part(self.index, self.of, out))
            }
            Linear::O | Linear::Down => Section::Columns(part(self.index, self.of, width)),
        })
    }

    /// Returns the widths of the slice, as those of a model.
    pub fn spec(self, spec: &ModelSpec) -> ModelSpec {
        let mut slice = spec.clone();
        slice.heads.num_heads /= self.of;
        slice.heads.num_kv_heads /= self.of;
        slice.intermediate_size /= self.of;
        slice.vocab_size = self.vocabulary(spec).len();
        slice
    }
}

/// Checks that a model can be cut into so many slices; `nf4` says whether linear layers are kept so.
///
/// # Errors
/// [`SliceError`]
pub fn check(spec: &ModelSpec, tensor: usize, nf4: bool) -> Result<(), SliceError> {
    let reasons = faults(spec, tensor, nf4);
    if reasons.is_empty() {
        return Ok(());
    }
    // More slices than key and value heads never do.
    let degrees = (1..=spec.heads.num_kv_heads).filter(|of| faults(spec, *of, nf4).is_empty()).collect();
    Err(SliceError { tensor, reasons, degrees })
}

/// Says what of a model does not divide.
fn faults(spec: &ModelSpec, of: usize, nf4: bool) -> Vec<String> {
    let counts = [
        (spec.heads.num_heads, "attention heads"),
        (spec.heads.num_kv_heads, "key/value heads"),
        (spec.intermediate_size, "inner columns of the feed-forward layer"),
    ];
    let mut faults: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| of == 0 || !count.is_multiple_of(of))
        .map(|(count, what)| format!("it has {count} {what}"))
        .collect();
    if of > spec.vocab_size {
        faults.push(format!("its vocabulary has {} entries", spec.vocab_size));
    }
    if !faults.is_empty() || !nf4 || of == 1 {
        return faults;
    }
    let broken = LINEARS.into_iter().find_map(|linear| {
        let (out, width) = spec.linear_shape(linear);
        let whole = |index| match (Slice { index, of }).section(spec, linear) {
            Some(part) => nf4::is_whole_blocks([out, width], NF4_BLOCK, &part),
            None => true,
        };
        (!(0..of).all(whole)).then_some((linear, width))
    });
    broken.map_or(faults, |(linear, width)| {
        let (name, part) = (linear.name(), width / of);
        vec![match linear {
            Linear::O | Linear::Down => format!(
                "a slice of `{name}` would have {part} of {width} columns, which are not whole nf4 blocks of {NF4_BLOCK}"
            ),
            _ => format!("slices of `{name}`, whose rows have {width} values, are not whole nf4 blocks of {NF4_BLOCK}"),
        }]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SmolLM2-135M: 9 heads of 64 over 3 key heads, 1536 inner columns.
    fn smollm2() -> ModelSpec {
        let config = serde_json::json!({
            "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 2,
            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
        });
        ModelSpec::from_json(&config).expect("a supported configuration")
    }

    #[test]
    fn slices_make_up_the_model() {
        let spec = smollm2();
        check(&spec, 3, true).expect("three key heads");
        let slice = |index| Slice { index, of: 3 };
        assert_eq!(slice(1).section(&spec, Linear::Q), Some(Section::Rows(192..384)));
        assert_eq!(slice(2).section(&spec, Linear::K), Some(Section::Rows(128..192)));
        assert_eq!(slice(1).section(&spec, Linear::O), Some(Section::Columns(192..384)));
        assert_eq!(slice(2).section(&spec, Linear::Down), Some(Section::Columns(1024..1536)));
        assert_eq!(slice(0).vocabulary(&spec), 0..16384);
        assert_eq!(Slice::WHOLE.section(&spec, Linear::Q), None);
        let part = slice(1).spec(&spec);
        for linear in LINEARS {
            let (out, width) = spec.linear_shape(linear);
            let of_slice = slice(1).section(&spec, linear).expect("a part").shape([out, width]);
            assert_eq!(of_slice, <[usize; 2]>::from(part.linear_shape(linear)), "{linear:?}");
        }
    }

    #[test]
    fn what_does_not_divide_is_named() {
        let refused = |spec: &ModelSpec, tensor, nf4| {
            let error = check(spec, tensor, nf4).expect_err("it does not divide");
            (error.to_string(), error.hint())
        };
        let spec = smollm2();
        assert_eq!(
            refused(&spec, 2, false),
            (
                "`parallel.tensor` (2) cannot cut this model: it has 9 attention heads; it has 3 key/value heads"
                    .to_owned(),
                "set `parallel.tensor` to 1 or 3".to_owned()
            )
        );
        let mut narrow = spec.clone();
        narrow.intermediate_size = 96;
        check(&narrow, 3, false).expect("96 is three times 32");
        assert_eq!(
            refused(&narrow, 3, true).0,
            "`parallel.tensor` (3) cannot cut this model: a slice of `down_proj` would have 32 of 96 columns, which \
             are not whole nf4 blocks of 64"
        );
        narrow.heads.num_kv_heads = 1;
        assert!(refused(&narrow, 3, false).1.starts_with("this model cannot be cut"));
    }
}
