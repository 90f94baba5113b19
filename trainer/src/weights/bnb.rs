//! Weights that bitsandbytes quantized and transformers saved.
//!
//! A quantized `weight` has companions: `weight.absmax`, `weight.quant_map`, with double quantization
//! `weight.nested_absmax` and `weight.nested_quant_map`, and a JSON description in
//! `weight.quant_state.bitsandbytes__nf4`; for int8, `SCB` and `weight_format` beside the weight. The packed bytes
//! may be stored as any element type (`bnb_4bit_quant_storage`), so only their number counts.

use std::collections::BTreeMap;

use seedcorn_kernels::int8::Int8;
use seedcorn_kernels::nf4::{self, Absmax, Nf4};
use serde::Deserialize;

use super::WeightsError;
use super::folder::SafetensorsSource;
use super::safetensors::{ElementType, Entry};

/// What a stored tensor is in a bitsandbytes checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Codes of an NF4 weight.
    Nf4,
    /// Codes of an FP4 weight.
    Fp4,
    /// Codes of an int8 weight.
    Int8,
    /// A companion of one of these.
    Part,
}

const STATE: &str = ".quant_state.bitsandbytes__";
const PARTS: [&str; 4] = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];

/// The JSON description of a 4-bit weight. Only what reading needs.
#[derive(Debug, Deserialize)]
pub(super) struct State {
    quant_type: String,
    blocksize: usize,
    pub(super) shape: [usize; 2],
    nested_blocksize: Option<usize>,
    nested_offset: Option<f64>,
}

/// Finds the quantized weights and their companions among the stored names.
pub(super) fn roles(source: &SafetensorsSource) -> BTreeMap<String, Role> {
    let mut roles = BTreeMap::new();
    for name in source.stored_names() {
        if let Some((weight, kind)) = name.split_once(STATE) {
            roles.insert(weight.to_owned(), if kind == "nf4" { Role::Nf4 } else { Role::Fp4 });
            roles.insert(name.to_owned(), Role::Part);
            for part in PARTS {
                roles.insert(format!("{weight}{part}"), Role::Part);
            }
        } else if let Some(module) = name.strip_suffix(".SCB") {
            roles.insert(format!("{module}.weight"), Role::Int8);
            roles.insert(name.to_owned(), Role::Part);
            roles.insert(format!("{module}.weight_format"), Role::Part);
        }
    }
    roles.retain(|name, _| source.stored(name).is_some());
    roles
}

/// Reads the description of a 4-bit weight.
pub(super) fn state(source: &SafetensorsSource, weight: &str) -> Result<State, WeightsError> {
    let part = format!("{weight}{STATE}nf4");
    let (_, bytes) = find(source, weight, &part)?;
    let state: State =
        serde_json::from_slice(bytes).map_err(|source| WeightsError::QuantState { part, source })?;
    if state.quant_type != "nf4" {
        let format = format!("bitsandbytes {}", state.quant_type);
        return Err(WeightsError::QuantFormat { tensor: weight.to_owned(), format });
    }
    Ok(state)
}

/// Reads an NF4 weight as it is stored.
pub(super) fn read_nf4(source: &SafetensorsSource, weight: &str) -> Result<Nf4, WeightsError> {
    let state = state(source, weight)?;
    let (_, packed) = find(source, weight, weight)?;
    let quant_map = f32s(source, weight, ".quant_map")?;
    if quant_map != nf4::CODE {
        return Err(WeightsError::Part {
            part: format!("{weight}.quant_map"),
            expected: "the 16 nf4 values".to_owned(),
            got: format!("{} other values", quant_map.len()),
        });
    }
    let absmax = match (state.nested_blocksize, state.nested_offset) {
        (Some(nested_block), Some(offset)) => {
            let map = f32s(source, weight, ".nested_quant_map")?;
            let map = map.try_into().map_err(|map: Vec<f32>| WeightsError::Part {
                part: format!("{weight}.nested_quant_map"),
                expected: "256 values".to_owned(),
                got: format!("{} values", map.len()),
            })?;
            Absmax::Double {
                codes: typed(source, weight, ".absmax", ElementType::U8)?.to_vec(),
                nested_absmax: f32s(source, weight, ".nested_absmax")?,
                nested_block,
                offset: offset as f32,
                map: Box::new(map),
            }
        }
        _ => Absmax::Single(f32s(source, weight, ".absmax")?),
    };
    let matrix = Nf4 { packed: packed.to_vec(), absmax, shape: state.shape, block_size: state.blocksize };
    matrix.check().map_err(|source| WeightsError::Nf4 { tensor: weight.to_owned(), source })?;
    Ok(matrix)
}

/// Reads an int8 weight as it is stored.
pub(super) fn read_int8(source: &SafetensorsSource, weight: &str) -> Result<Int8, WeightsError> {
    let (entry, bytes) = find(source, weight, weight)?;
    let expected = || "a matrix of type I8".to_owned();
    let (&[rows, cols], ElementType::I8) = (&entry.shape[..], entry.dtype) else {
        return Err(WeightsError::Part {
            part: weight.to_owned(),
            expected: expected(),
            got: describe(entry),
        });
    };
    let module = weight.strip_suffix("weight").unwrap_or(weight);
    let format_name = format!("{module}weight_format");
    if let Some((entry, bytes)) = source.stored(&format_name) {
        // 0 is "row"; the others are tilings for old GPUs.
        if bytes != [0] {
            let expected = "0 (row-major)".to_owned();
            return Err(WeightsError::Part { part: format_name, expected, got: describe(entry) });
        }
    }
    let codes = bytes.iter().map(|byte| byte.cast_signed()).collect();
    let row_absmax = f32s(source, module, "SCB")?;
    let matrix = Int8 { codes, row_absmax, shape: [rows, cols] };
    matrix.check().map_err(|source| WeightsError::Int8 { tensor: weight.to_owned(), source })?;
    Ok(matrix)
}

fn find<'a>(
    source: &'a SafetensorsSource,
    weight: &str,
    part: &str,
) -> Result<(&'a Entry, &'a [u8]), WeightsError> {
    source
        .stored(part)
        .ok_or_else(|| WeightsError::MissingPart { tensor: weight.to_owned(), part: part.to_owned() })
}

fn typed<'a>(
    source: &'a SafetensorsSource,
    weight: &str,
    suffix: &str,
    dtype: ElementType,
) -> Result<&'a [u8], WeightsError> {
    let part = format!("{weight}{suffix}");
    let (entry, bytes) = find(source, weight, &part)?;
    if entry.dtype == dtype {
        return Ok(bytes);
    }
    let expected = format!("of type {}", dtype.name());
    Err(WeightsError::Part { part, expected, got: describe(entry) })
}

fn f32s(source: &SafetensorsSource, weight: &str, suffix: &str) -> Result<Vec<f32>, WeightsError> {
    let bytes = typed(source, weight, suffix, ElementType::F32)?;
    Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

fn describe(entry: &Entry) -> String {
    format!("{} of shape {:?}", entry.dtype.name(), entry.shape)
}
