//! Writing of an adapter folder: same weights, same bytes.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView, serialize};

use super::{CONFIG_FILE, MODEL_FILE, PeftConfig, tensor_name};
use crate::error::AdapterError;
use crate::folder::NewFolder;
use crate::lora::LoraWeights;
use crate::target::{LinearModule, as_list};

/// Writes an adapter as a PEFT folder, in F32; an adapter already in `folder` is replaced at the very end.
///
/// `modules` are all linear layers of the model: the adapted ones become the shortest `target_modules` that
/// selects exactly them.
///
/// # Errors
/// Weights that disagree with the configuration or the model, numbers that are not finite, a folder that
/// holds anything else.
pub fn write(
    folder: &Path,
    config: &PeftConfig,
    weights: &[LoraWeights],
    modules: &[LinearModule],
) -> Result<(), AdapterError> {
    config.lora.validate()?;
    weights.iter().try_for_each(|layer| check(config, layer, modules))?;
    let names: BTreeSet<&str> = weights.iter().map(|layer| layer.name.as_str()).collect();
    let json = config.to_json(&as_list(&names, modules));
    let text = serde_json::to_string_pretty(&json).expect("a value of strings and numbers always prints");

    let new = NewFolder::create(folder, |name| [CONFIG_FILE, MODEL_FILE, "run.lock"].contains(&name))?;
    new.write(CONFIG_FILE, text.as_bytes())?;
    new.write(MODEL_FILE, &tensors(weights))?;
    new.commit()
}

/// Refuses weights that would read back as something else.
fn check(config: &PeftConfig, layer: &LoraWeights, modules: &[LinearModule]) -> Result<(), AdapterError> {
    let Some(module) = modules.iter().find(|module| module.name == layer.name) else {
        return Err(AdapterError::UnknownModule { module: layer.name.clone() });
    };
    let (cfg_rank, cfg_scale) = config.lora.scale_for(&layer.name)?;
    if (cfg_rank, cfg_scale) != (layer.rank, layer.scale) {
        let (module, rank, scale) = (layer.name.clone(), layer.rank, layer.scale);
        return Err(AdapterError::Inconsistent { module, rank, scale, cfg_rank, cfg_scale });
    }
    let shapes = [
        ('A', &layer.a, [layer.rank, layer.in_features], [layer.rank, module.in_features]),
        ('B', &layer.b, [layer.out_features, layer.rank], [module.out_features, layer.rank]),
    ];
    for (factor, values, found, expected) in shapes {
        let tensor = tensor_name(&layer.name, factor);
        if found != expected || values.len() != found[0] * found[1] {
            let (found, expected) = (found.to_vec(), expected.to_vec());
            return Err(AdapterError::ShapeMismatch { tensor, found, expected });
        }
        if let Some(index) = values.iter().position(|x| !x.is_finite()) {
            return Err(AdapterError::NotFinite { tensor, index });
        }
    }
    Ok(())
}

fn tensors(weights: &[LoraWeights]) -> Vec<u8> {
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let mut all = Vec::with_capacity(2 * weights.len());
    for layer in weights {
        all.push((tensor_name(&layer.name, 'A'), [layer.rank, layer.in_features], bytes(&layer.a)));
        all.push((tensor_name(&layer.name, 'B'), [layer.out_features, layer.rank], bytes(&layer.b)));
    }
    let views = all.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("lengths were checked");
        (name.as_str(), view)
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    // One dtype, so the crate orders tensors by name alone.
    serialize(views, Some(metadata)).expect("shapes were checked and names are distinct")
}
