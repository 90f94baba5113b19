//! Tiny models from `fixtures/models`, and the tensors that transformers made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use seedcorn::model::{Decoder, Input, ModelSpec, Precision, load};
use seedcorn::recipe::Quantize;
use seedcorn::weights;
use seedcorn_data::{MicroBatch, Sample};
use seedcorn_kernels::frozen::Compute;

/// Weights as they are stored, products in f32.
pub const PLAIN: Precision =
    Precision { quantize: Quantize::None, double_quant: false, compute: Compute::F32 };

/// Returns the path of a file or folder below `tests/fixtures`.
pub fn fixture(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// Loads the tiny model `name` as `config` (`config.json` or `config_v4.json`) describes it.
///
/// # Panics
/// When it cannot be loaded, which fails the test that asks.
pub fn tiny(name: &str, config: &str, precision: Precision) -> Decoder {
    let folder = fixture("models").join(name);
    let spec = ModelSpec::from_json(&json(&folder.join(config))).expect("a supported configuration");
    let source = weights::open(&folder).expect("readable weights");
    load(spec, source.as_ref(), precision, &Device::flex()).expect("weights that fit the configuration")
}

/// Reads a JSON file.
///
/// # Panics
/// When it is not there or not JSON.
pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs_err::read(path).expect("a fixture")).expect("JSON")
}

/// A tensor of a fixture, integers widened to f64 as well.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f64>,
}

impl Values {
    /// Returns the rows of a matrix, or the `[.., width]` rows of a larger tensor.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(*self.shape.last().expect("no scalar"))
    }

    /// Returns the values as f32, which is what they are stored in.
    pub fn f32s(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }
}

/// Reads every tensor of a safetensors file.
///
/// # Panics
/// When the file is not there or holds other types than f32, i32 and i64.
pub fn tensors(path: &Path) -> BTreeMap<String, Values> {
    let bytes = fs_err::read(path).expect("a fixture");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::I32 => data.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            other => panic!("`{name}` is {other:?}"),
        };
        (name, Values { shape: view.shape().to_vec(), values })
    };
    file.tensors().into_iter().map(read).collect()
}

/// Lays samples of `(input_ids, labels)` one after another as the segments of one forward pass.
pub fn batch(samples: &[(Vec<u32>, Vec<i32>)]) -> MicroBatch {
    let samples: Vec<Sample> = samples
        .iter()
        .map(|(ids, labels)| Sample { input_ids: ids.clone(), labels: labels.clone(), ..Sample::default() })
        .collect();
    MicroBatch::from_samples(0, &samples.iter().collect::<Vec<_>>())
}

/// Lays `(input_ids, labels)` out as the input of a forward pass; see [`batch`].
pub fn input(samples: &[(Vec<u32>, Vec<i32>)]) -> Input {
    Input::from(&batch(samples))
}

/// Reads a tensor's values back.
///
/// # Panics
/// When they are not f32.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32 values")
}

/// Returns the largest absolute difference of two equally long lists.
///
/// # Panics
/// When their lengths differ.
pub fn max_difference(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(got, expected)| (f64::from(*got) - expected).abs()).fold(0.0, nan_max)
}

/// Returns `|got - expected| / |expected|` in the Euclidean norm.
///
/// # Panics
/// When their lengths differ, or `expected` is zero.
pub fn relative_norm(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let square = |sum: f64, x: f64| sum + x * x;
    let difference = got.iter().zip(expected).map(|(got, expected)| f64::from(*got) - expected);
    let norm = expected.iter().copied().fold(0.0, square).sqrt();
    assert!(norm > 0.0, "nothing to compare with");
    difference.fold(0.0, square).sqrt() / norm
}

/// The larger of two numbers; NaN if one is, so that NaN never passes as a small difference.
fn nan_max(left: f64, right: f64) -> f64 {
    if left.is_nan() || right.is_nan() { f64::NAN } else { left.max(right) }
}
