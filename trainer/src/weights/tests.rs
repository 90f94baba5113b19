//! Whole sources: folders, shards, bitsandbytes checkpoints.

use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/models");

fn save(path: &Path, tensors: &[(&str, &str, &[usize], Vec<u8>)]) {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(
            (*name).to_owned(),
            serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }),
        );
        data.extend(bytes);
    }
    let header = serde_json::Value::from(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    fs_err::write(path, file).unwrap();
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn sharded(map: &serde_json::Value) -> TempDir {
    let folder = TempDir::new().unwrap();
    save(&folder.path().join("one.safetensors"), &[("a", "F32", &[2], f32s(&[1.0, -2.5]))]);
    save(&folder.path().join("two.safetensors"), &[("b", "BF16", &[2, 1], vec![0x80, 0x3f, 0x00, 0xc0])]);
    let index = serde_json::json!({ "metadata": { "total_size": 12 }, "weight_map": map });
    fs_err::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    folder
}

fn open_error(path: &Path) -> WeightsError {
    match open(path) {
        Err(error) => error,
        Ok(_) => panic!("{} opened", path.display()),
    }
}

#[test]
fn shards_read_as_one_model() {
    let folder = sharded(&serde_json::json!({ "a": "one.safetensors", "b": "two.safetensors" }));
    let source = open(folder.path()).unwrap();
    assert_eq!(source.names(), ["a", "b"]);
    assert_eq!(source.read_f32("a").unwrap(), [1.0, -2.5]);
    assert_eq!(source.read_f32("b").unwrap(), [1.0, -2.0]);
    assert!(source.read_quantized("b").unwrap().is_none());
    let info = source.info("b").unwrap();
    assert_eq!((info.shape, info.dtype.to_string()), (vec![2, 1], "BF16".to_owned()));
    assert!(info.file.ends_with("two.safetensors"));
    assert_eq!(
        source.read_f32("c").unwrap_err().to_string(),
        "no tensor `c` among the 2 tensors of the model"
    );
    assert!(source.info("c").is_none());
}

#[test]
fn an_index_must_not_lead_out_of_its_folder() {
    for shard in ["../one.safetensors", "/etc/passwd", "", "x/../../y"] {
        let folder = sharded(&serde_json::json!({ "a": shard }));
        assert!(matches!(open_error(folder.path()), WeightsError::IndexPath { .. }), "{shard}");
    }
}

#[test]
fn an_index_must_be_true() {
    let folder = sharded(&serde_json::json!({ "a": "three.safetensors" }));
    assert!(
        open_error(folder.path()).to_string().ends_with("names shard `three.safetensors`, which is missing")
    );
    let folder = sharded(&serde_json::json!({ "a": "two.safetensors" }));
    let message = open_error(folder.path()).to_string();
    assert!(message.ends_with("puts tensor `a` into `two.safetensors`, which does not hold it"), "{message}");
    fs_err::write(folder.path().join("model.safetensors.index.json"), "{}").unwrap();
    assert!(matches!(open_error(folder.path()), WeightsError::Index { .. }));
}

#[test]
fn a_folder_without_weights_and_a_damaged_file() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(open_error(folder.path()), WeightsError::NoWeights { .. }));
    assert!(matches!(open_error(&folder.path().join("none")), WeightsError::Io(_)));
    let file = folder.path().join("model.safetensors");
    fs_err::write(&file, [0; 4]).unwrap();
    let error = open_error(folder.path());
    assert_eq!(error.to_string(), format!("could not read `{}`", file.display()));
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("expected 8 bytes, got 4"));
    assert!(error.hint().is_some());
}

#[test]
fn only_floats_become_f32() {
    let folder = TempDir::new().unwrap();
    let half = half::f16::from_f32(0.1).to_le_bytes().to_vec();
    let file = folder.path().join("model.safetensors");
    save(
        &file,
        &[
            ("i", "I32", &[1], vec![1, 0, 0, 0]),
            ("h", "F16", &[1], half),
            ("d", "F64", &[], 0.5_f64.to_le_bytes().to_vec()),
        ],
    );
    let source = open(&file).unwrap();
    assert_eq!(source.read_f32("h").unwrap(), [half::f16::from_f32(0.1).to_f32()]);
    assert_eq!(source.read_f32("d").unwrap(), [0.5]);
    let message = source.read_f32("i").unwrap_err().to_string();
    assert!(message.contains("tensor `i`") && message.contains("of type I32"), "{message}");
}

#[test]
fn a_bitsandbytes_model_loads_as_it_is() {
    let source = open(Path::new(&format!("{MODELS}/llama-bnb-nf4"))).unwrap();
    let names = source.names();
    assert_eq!(names.len(), 21, "{names:?}");
    assert!(names.iter().all(|name| name.ends_with(".weight")));
    let expected = fs_err::read(format!("{MODELS}/llama-bnb-nf4/expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    assert_eq!(expected.as_object().unwrap().len(), 14);
    for name in names {
        let info = source.info(&name).unwrap();
        let Some(expected) = expected.get(&name) else {
            assert_eq!(info.dtype.to_string(), "F32", "{name}");
            assert!(source.read_quantized(&name).unwrap().is_none());
            continue;
        };
        assert_eq!((serde_json::json!(info.shape), info.dtype), (expected["shape"].clone(), Dtype::Nf4));
        let Some(Quantized::Nf4(matrix)) = source.read_quantized(&name).unwrap() else { panic!("{name}") };
        assert!(matches!(matrix.absmax, seedcorn_kernels::nf4::Absmax::Double { nested_block: 256, .. }));
        let bytes: Vec<u8> =
            source.read_f32(&name).unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(format!("{:x}", Sha256::digest(bytes)), expected["sha256"].as_str().unwrap(), "{name}");
        assert!(source.read_quantized(&format!("{name}.absmax")).is_err());
    }
}

/// The NF4 tensors of a small checkpoint, as bitsandbytes names them.
fn nf4_parts(kind: &str, storage: &str) -> Vec<(String, String, Vec<usize>, Vec<u8>)> {
    let state = format!(r#"{{"quant_type":"{kind}","blocksize":64,"dtype":"float32","shape":[2,64]}}"#);
    let (packed_shape, packed) = (if storage == "U8" { vec![64, 1] } else { vec![32, 1] }, vec![0x7f; 64]);
    vec![
        ("m.weight".into(), storage.into(), packed_shape, packed),
        ("m.weight.absmax".into(), "F32".into(), vec![2], f32s(&[1.0, 3.0])),
        ("m.weight.quant_map".into(), "F32".into(), vec![16], f32s(&seedcorn_kernels::nf4::CODE)),
        (
            format!("m.weight.quant_state.bitsandbytes__{kind}"),
            "U8".into(),
            vec![state.len()],
            state.into_bytes(),
        ),
    ]
}

fn open_parts(parts: &[(String, String, Vec<usize>, Vec<u8>)]) -> (TempDir, Box<dyn TensorSource>) {
    let folder = TempDir::new().unwrap();
    let tensors: Vec<_> =
        parts.iter().map(|(name, dtype, shape, data)| (&**name, &**dtype, &**shape, data.clone())).collect();
    save(&folder.path().join("model.safetensors"), &tensors);
    let source = open(folder.path()).unwrap();
    (folder, source)
}

#[test]
fn packed_bytes_may_be_stored_as_any_type() {
    for storage in ["U8", "BF16"] {
        let (_folder, source) = open_parts(&nf4_parts("nf4", storage));
        assert_eq!(source.names(), ["m.weight"]);
        let values = source.read_f32("m.weight").unwrap();
        assert_eq!((values[0], values[1], values[65]), (0.0, 1.0, 3.0), "{storage}");
    }
}

#[test]
fn broken_bitsandbytes_tensors_are_named() {
    let read = |parts: &[_]| {
        let (_folder, source) = open_parts(parts);
        source.read_quantized("m.weight").unwrap_err()
    };
    let message = read(&nf4_parts("fp4", "U8")).to_string();
    assert_eq!(message, "tensor `m.weight` is quantized as bitsandbytes fp4, which is not supported");
    let mut parts = nf4_parts("nf4", "U8");
    parts.remove(1);
    assert_eq!(read(&parts).to_string(), "quantized tensor `m.weight` lacks its part `m.weight.absmax`");
    let mut parts = nf4_parts("nf4", "U8");
    (parts[0].2, parts[0].3) = (vec![63, 1], vec![0; 63]);
    assert!(matches!(read(&parts), WeightsError::Nf4 { .. }));
    let mut parts = nf4_parts("nf4", "U8");
    parts[2].3[0] = 1;
    assert!(matches!(read(&parts), WeightsError::Part { .. }));
    let mut parts = nf4_parts("nf4", "U8");
    parts[3].3[0] = b'[';
    assert!(matches!(read(&parts), WeightsError::QuantState { .. }));
}

#[test]
fn int8_weights_load_as_they_are() {
    let parts = |format: u8| {
        vec![
            ("m.weight".to_owned(), "I8".to_owned(), vec![2, 2], vec![127, 0xff, 0x81, 0]),
            ("m.SCB".to_owned(), "F32".to_owned(), vec![2], f32s(&[1.0, 2.0])),
            ("m.weight_format".to_owned(), "U8".to_owned(), vec![], vec![format]),
        ]
    };
    let (_folder, source) = open_parts(&parts(0));
    assert_eq!(source.names(), ["m.weight"]);
    let Some(Quantized::Int8(matrix)) = source.read_quantized("m.weight").unwrap() else {
        panic!("not int8")
    };
    assert_eq!((matrix.codes, matrix.row_absmax), (vec![127, -1, -127, 0], vec![1.0, 2.0]));
    let (_folder, source) = open_parts(&parts(2));
    assert!(matches!(source.read_quantized("m.weight"), Err(WeightsError::Part { .. })));
}
