//! Reading of an adapter folder, checked against the model it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

use super::{CONFIG_FILE, MODEL_FILE, PREFIX, PeftConfig, tensor_name};
use crate::error::AdapterError;
use crate::lora::{LoraConfig, LoraWeights};
use crate::target::{LinearModule, Targets, as_list, end_match, matcher};

/// Largest `adapter_config.json` that is read, bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Largest tensor file that is read, bytes: every layer of a 100B model at rank 512 stays below.
const MAX_MODEL_BYTES: u64 = 1 << 36;

/// An adapter as it stands in a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftAdapter {
    /// `adapter_config.json`.
    pub config: PeftConfig,
    /// The adapted layers, in the order of the model's modules.
    pub weights: Vec<LoraWeights>,
}

/// Reads the adapter in `folder` for a model with these linear layers. The returned configuration is the one
/// that applies: its targets are the layers found, its patterns those of use, so that
/// [`LoraConfig::plan`](crate::lora::LoraConfig::plan) gives the same layers again. A layer that
/// `target_modules` selects but that has no tensors stays without an adapter; PEFT gives it B = 0.
///
/// # Errors
/// Settings that cannot be honoured, layers the model does not have or `target_modules` does not select, a
/// factor without its partner, shapes that do not fit, numbers that are not finite.
pub fn read(folder: &Path, modules: &[LinearModule]) -> Result<PeftAdapter, AdapterError> {
    let path = folder.join(CONFIG_FILE);
    let not_json = |source| AdapterError::NotJson { path: path.clone(), source };
    let value: Value =
        serde_json::from_slice(&read_bounded(&path, MAX_CONFIG_BYTES)?).map_err(|e| not_json(Some(e)))?;
    let mut config = PeftConfig::from_json(value.as_object().ok_or_else(|| not_json(None))?)?;

    let path = folder.join(MODEL_FILE);
    let bytes = read_bounded(&path, MAX_MODEL_BYTES)?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|source| AdapterError::BadSafetensors { path: path.clone(), source })?;
    let weights = weights(&config, &tensors, modules)?;
    narrow(&mut config.lora, &weights, modules)?;
    Ok(PeftAdapter { config, weights })
}

/// Reduces a configuration to what the weights use.
fn narrow(
    lora: &mut LoraConfig,
    weights: &[LoraWeights],
    modules: &[LinearModule],
) -> Result<(), AdapterError> {
    let names: BTreeSet<&str> = weights.iter().map(|layer| layer.name.as_str()).collect();
    lora.targets = Targets::List(as_list(&names, modules));
    lora.exclude.clear();
    let used = |pattern: &String| {
        let regex = end_match(pattern)?;
        Ok::<_, AdapterError>(names.iter().any(|name| regex.is_match(name)))
    };
    for pattern in lora.rank_pattern.keys().cloned().collect::<Vec<_>>() {
        if !used(&pattern)? {
            lora.rank_pattern.remove(&pattern);
        }
    }
    for pattern in lora.alpha_pattern.keys().cloned().collect::<Vec<_>>() {
        if !used(&pattern)? {
            lora.alpha_pattern.remove(&pattern);
        }
    }
    Ok(())
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, AdapterError> {
    let bytes = fs_err::metadata(path)?.len();
    if bytes > limit {
        return Err(AdapterError::TooLarge { path: path.to_owned(), bytes, limit });
    }
    Ok(fs_err::read(path)?)
}

fn weights(
    config: &PeftConfig,
    tensors: &SafeTensors<'_>,
    modules: &[LinearModule],
) -> Result<Vec<LoraWeights>, AdapterError> {
    let names = tensors.names().into_iter().map(module_of).collect::<Result<BTreeSet<_>, _>>()?;
    let known: BTreeMap<&str, &LinearModule> = modules.iter().map(|m| (m.name.as_str(), m)).collect();
    let selected = matcher(&config.lora.targets)?;
    let excluded = matcher(&Targets::List(config.lora.exclude.clone()))?;
    for name in &names {
        let module = (*name).to_owned();
        if !known.contains_key(name) {
            return Err(AdapterError::UnknownModule { module });
        }
        if !selected(name) || excluded(name) {
            return Err(AdapterError::OutsideTargets { module });
        }
    }
    modules
        .iter()
        .filter(|module| names.contains(module.name.as_str()))
        .map(|module| layer(config, tensors, module))
        .collect()
}

/// Strips a tensor name to its module path; anything but a LoRA factor is refused.
fn module_of(tensor: &str) -> Result<&str, AdapterError> {
    let module = tensor
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(".lora_A.weight").or_else(|| rest.strip_suffix(".lora_B.weight")));
    module.ok_or_else(|| AdapterError::UnsupportedTensor { tensor: tensor.to_owned() })
}

fn layer(
    config: &PeftConfig,
    tensors: &SafeTensors<'_>,
    module: &LinearModule,
) -> Result<LoraWeights, AdapterError> {
    let (rank, scale) = config.lora.scale_for(&module.name)?;
    let factor = |factor, expected: [usize; 2]| {
        let name = tensor_name(&module.name, factor);
        let Ok(view) = tensors.tensor(&name) else {
            return Err(AdapterError::MissingTensor { tensor: name });
        };
        if view.shape() != expected {
            let (found, expected) = (view.shape().to_vec(), expected.to_vec());
            return Err(AdapterError::ShapeMismatch { tensor: name, found, expected });
        }
        floats(name, &view)
    };
    Ok(LoraWeights {
        name: module.name.clone(),
        rank,
        scale,
        a: factor('A', [rank, module.in_features])?,
        b: factor('B', [module.out_features, rank])?,
        in_features: module.in_features,
        out_features: module.out_features,
    })
}

fn floats(tensor: String, view: &TensorView<'_>) -> Result<Vec<f32>, AdapterError> {
    let data = view.data();
    let pairs = || data.chunks_exact(2).map(|b| [b[0], b[1]]);
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        other => return Err(AdapterError::UnsupportedDtype { tensor, found: format!("{other:?}") }),
    };
    match values.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(AdapterError::NotFinite { tensor, index }),
        None => Ok(values),
    }
}
