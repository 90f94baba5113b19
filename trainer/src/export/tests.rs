//! What is written is read back by the `safetensors` crate, value by value.

use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::{ExportDtype, ExportError, HubFolder, write_hub_folder};

fn tensors() -> Vec<(String, Vec<usize>)> {
    [
        ("model.norm.weight", vec![3]),
        ("model.embed_tokens.weight", vec![4, 3]),
        ("lm_head.weight", vec![4, 3]),
    ]
    .map(|(name, shape)| (name.to_owned(), shape))
    .to_vec()
}

fn value(name: &str, index: usize) -> f32 {
    name.len() as f32 + index as f32 / 3.0
}

fn export(path: &Path, config: &Value, dtype: ExportDtype, shard_bytes: u64) -> Result<(), ExportError> {
    let (tensors, side) = (tensors(), [("tokenizer.json".to_owned(), b"{}".to_vec())]);
    let model = HubFolder { config, side_files: &side, tensors: &tensors, dtype, shard_bytes };
    write_hub_folder(path, &model, &mut |name| {
        let n = if name.ends_with("norm.weight") { 3 } else { 12 };
        Ok((0..n).map(|i| value(name, i)).collect())
    })
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

#[test]
fn one_file_reads_back() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("out");
    let config =
        json!({"torch_dtype": "float16", "tie_word_embeddings": true, "quantization_config": {"a": 1}});
    export(&path, &config, ExportDtype::F32, 1 << 20).unwrap();
    let bytes = fs_err::read(path.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.sort_unstable();
    assert_eq!(names, ["model.embed_tokens.weight", "model.norm.weight"], "the tied head is dropped");
    for name in names {
        let view = file.tensor(name).unwrap();
        for (i, b) in view.data().chunks_exact(4).enumerate() {
            assert_eq!(f32::from_le_bytes([b[0], b[1], b[2], b[3]]), value(name, i));
        }
    }
    let written = json_of(&path.join("config.json"));
    assert_eq!(written, json!({"torch_dtype": "float32", "tie_word_embeddings": true}));
    assert_eq!(fs_err::read(path.join("tokenizer.json")).unwrap(), b"{}");
}

#[test]
fn shards_hold_every_tensor_once() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("out");
    export(&path, &json!({"dtype": "float32"}), ExportDtype::Bf16, 30).unwrap();
    assert_eq!(json_of(&path.join("config.json")), json!({"dtype": "bfloat16"}));
    let index = json_of(&path.join("model.safetensors.index.json"));
    assert_eq!(index["metadata"]["total_size"], json!(2 * (12 + 12 + 3)));
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(map.len(), 3);
    assert_eq!(map["lm_head.weight"], "model-00001-of-00002.safetensors");
    for (name, file) in map {
        let bytes = fs_err::read(path.join(file.as_str().unwrap())).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor(name).unwrap();
        for (i, b) in view.data().chunks_exact(2).enumerate() {
            let read = half::bf16::from_le_bytes([b[0], b[1]]);
            assert_eq!(read, half::bf16::from_f32(value(name, i)));
        }
    }
    // A second export into the same place with fewer shards leaves none of the first behind.
    export(&path, &json!({"dtype": "float32"}), ExportDtype::Bf16, 1 << 20).unwrap();
    assert!(!path.join("model.safetensors.index.json").exists());
}

#[test]
fn another_model_is_not_replaced() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("out");
    export(&path, &json!({"dtype": "float32"}), ExportDtype::F32, 1 << 20).unwrap();
    let file = path.join("model.safetensors");
    let ours = fs_err::read(&file).unwrap();
    // Only what the metadata says of the writer is different.
    let header = String::from_utf8_lossy(&ours[8..80]).replace("seedcorn", "somebody");
    let theirs = [&ours[..8], header.as_bytes(), &ours[80..]].concat();
    assert!(SafeTensors::deserialize(&theirs).is_ok());
    for content in [&theirs[..], &ours[..20], b""] {
        fs_err::write(&file, content).unwrap();
        let fault = export(&path, &json!({}), ExportDtype::F32, 1 << 20).unwrap_err().to_string();
        assert!(fault.contains("holds `model.safetensors`"), "{fault}");
        assert_eq!(fs_err::read(&file).unwrap(), content);
    }
    fs_err::write(&file, &ours).unwrap();
    export(&path, &json!({}), ExportDtype::F32, 1 << 20).unwrap();
}

#[test]
fn a_failed_export_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("out");
    let (config, tensors) = (json!({}), tensors());
    let of = |side_files| HubFolder {
        config: &config,
        side_files,
        tensors: &tensors,
        dtype: ExportDtype::F32,
        shard_bytes: 1 << 20,
    };
    let fault = |values: Vec<f32>| {
        let fault = write_hub_folder(&path, &of(&[]), &mut |_| Ok(values.clone())).unwrap_err().to_string();
        assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 0);
        fault
    };
    assert_eq!(fault(vec![0.0; 7]), "tensor `lm_head.weight` has 7 elements, its shape needs 12");
    assert_eq!(fault(vec![f32::NAN; 12]), "tensor `lm_head.weight` is not finite at element 0");
    let side = [("../x".to_owned(), Vec::new())];
    let fault = write_hub_folder(&path, &of(&side), &mut |_| Ok(Vec::new())).unwrap_err().to_string();
    assert_eq!(fault, "`../x` is not a file of a model folder");
}
