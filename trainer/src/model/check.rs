//! What the headers of a checkpoint tell before any weight is read.

use super::family::{LayerParam, Param};
use super::load::{LoadError, Precision};
use super::slice;
use super::spec::ModelSpec;
use crate::recipe::Quantize;
use crate::weights::safetensors::ElementType;
use crate::weights::{Dtype, TensorInfo, TensorSource, WeightsError};

/// Checks that every parameter of the architecture is there, with its shape and in a type that can be read, and that the
/// model can be cut into `tensor` slices.
///
/// # Errors
/// The first fault in forward order; [`load`](super::load::load) would end with the same one.
pub fn check(
    spec: &ModelSpec,
    source: &dyn TensorSource,
    precision: Precision,
    tensor: usize,
) -> Result<(), LoadError> {
    let mut nf4 = precision.quantize == Quantize::Nf4;
    for (param, expected) in spec.parameters() {
        let name = spec.tensor_name(param);
        let Some(info) = source.info(&name) else { return Err(LoadError::Missing { name }) };
        if info.shape != expected {
            return Err(LoadError::Shape { name, file: info.file, expected, got: info.shape });
        }
        let is_linear = matches!(param, Param::Layer(_, LayerParam::Weight(_)));
        nf4 |= is_linear && info.dtype == Dtype::Nf4;
        readable(name, info, is_linear, precision.quantize)?;
    }
    Ok(slice::check(spec, tensor, nf4)?)
}

fn readable(name: String, info: TensorInfo, is_linear: bool, asked: Quantize) -> Result<(), LoadError> {
    let (stored, kind) = match info.dtype {
        Dtype::Nf4 => ("nf4", Quantize::Nf4),
        Dtype::Int8 => ("int8", Quantize::Int8),
        Dtype::Ggml(_)
        | Dtype::Plain(ElementType::F32 | ElementType::F16 | ElementType::BF16 | ElementType::F64) => {
            return Ok(());
        }
        Dtype::Plain(other) => {
            return Err(WeightsError::NotFloat { file: info.file, tensor: name, dtype: other.name() }.into());
        }
        Dtype::Fp4 => {
            let format = "bitsandbytes fp4".to_owned();
            return Err(WeightsError::QuantFormat { tensor: name, format }.into());
        }
    };
    if is_linear && asked != Quantize::None && asked != kind {
        return Err(LoadError::Requantize { name, stored, asked });
    }
    Ok(())
}
