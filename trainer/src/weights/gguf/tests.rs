//! A real file from llama.cpp's writer, and hostile files.

use std::path::Path;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/models/gguf-llama");

fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&fs_err::read_to_string(format!("{MODEL}/{name}")).unwrap()).unwrap()
}

fn model() -> GgufSource {
    GgufSource::open(Path::new(&format!("{MODEL}/model.gguf"))).unwrap()
}

#[test]
fn every_tensor_is_bit_equal_to_gguf_py() {
    let (source, expected) = (model(), json("tensors.json"));
    let expected = expected.as_object().unwrap();
    assert_eq!(
        source.names(),
        expected.keys().collect::<std::collections::BTreeSet<_>>().into_iter().cloned().collect::<Vec<_>>()
    );
    for (name, expected) in expected {
        let info = source.info(name).unwrap();
        assert_eq!(serde_json::json!(info.shape), expected["shape"], "{name}");
        assert_eq!(info.dtype.to_string(), expected["type"].as_str().unwrap(), "{name}");
        let values = source.read_f32(name).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(format!("{:x}", Sha256::digest(bytes)), expected["sha256"].as_str().unwrap(), "{name}");
        assert!(source.read_quantized(name).unwrap().is_none());
    }
    assert!(source.read_f32("blk.0.attn_q.weight").is_err());
}

#[test]
fn config_and_tokenizer_are_rebuilt() {
    let source = model();
    assert_eq!(source.config().unwrap(), json("config.json"));
    let tokenizer = source.tokenizer().unwrap();
    let rebuilt: serde_json::Value = serde_json::from_str(&tokenizer.tokenizer_json).unwrap();
    assert_eq!(rebuilt, json("tokenizer.json"));
    assert_eq!(tokenizer.bos.as_deref(), Some("<|start|>"));
    assert_eq!(tokenizer.eos.as_deref(), Some("<|end|>"));
    assert_eq!(tokenizer.pad.as_deref(), Some("<|end|>"));
    assert_eq!(tokenizer.unk.as_deref(), Some("<|endoftext|>"));
    assert!(tokenizer.add_bos && !tokenizer.add_eos);
    assert_eq!(
        tokenizer.chat_template.as_deref(),
        Some("{% for m in messages %}{{ m.content }}{% endfor %}")
    );
}

/// A GGUF file in parts.
#[derive(Default)]
struct Builder {
    values: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn texts(items: &[&str]) -> Vec<u8> {
    let mut bytes = 8_u32.to_le_bytes().to_vec();
    bytes.extend((items.len() as u64).to_le_bytes());
    bytes.extend(items.iter().flat_map(|item| text(item)));
    bytes
}

impl Builder {
    fn value(mut self, key: &str, ty: u32, value: &[u8]) -> Self {
        self.values.push([text(key), ty.to_le_bytes().to_vec(), value.to_vec()].concat());
        self
    }

    fn uint(self, key: &str, value: u32) -> Self {
        self.value(key, 4, &value.to_le_bytes())
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.value(key, 8, &text(value))
    }

    fn tensor(mut self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Self {
        let mut entry = text(name);
        entry.extend((dims.len() as u32).to_le_bytes());
        entry.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        entry.extend(ty.to_le_bytes());
        entry.extend(offset.to_le_bytes());
        self.tensors.push(entry);
        self
    }

    fn build(&self) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.values.len() as u64).to_le_bytes());
        file.extend(self.values.iter().chain(&self.tensors).flatten());
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(&self.data);
        file
    }
}

/// A whole model of one layer's q weight and an embedding.
fn small(architecture: &str, pre: &str) -> Builder {
    let key = |name: &str| format!("{architecture}.{name}");
    let mut builder = Builder::default().text("general.architecture", architecture);
    for (name, value) in [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", 8),
        ("feed_forward_length", 16),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
    ] {
        builder = builder.uint(&key(name), value);
    }
    builder = builder
        .value(&key("attention.layer_norm_rms_epsilon"), 6, &1e-6_f32.to_le_bytes())
        .value(&key("rope.freq_base"), 6, &500_000.5_f32.to_le_bytes())
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", pre)
        .value("tokenizer.ggml.tokens", 9, &texts(&["a", "b", "ab"]))
        .value("tokenizer.ggml.merges", 9, &texts(&["a b"]))
        .uint("tokenizer.ggml.eos_token_id", 2)
        .tensor("token_embd.weight", &[8, 3], 0, 0)
        .tensor("blk.0.attn_q.weight", &[8, 8], 0, 96);
    builder.data = (0..24 + 64).flat_map(|i| (i as f32).to_le_bytes()).collect();
    builder
}

fn write(file: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("x.gguf");
    fs_err::write(&path, file).unwrap();
    (folder, path)
}

fn source(builder: &Builder) -> GgufSource {
    let (_folder, path) = write(&builder.build());
    GgufSource::open(&path).unwrap()
}

fn parse_error(builder: &Builder) -> String {
    Header::parse(&builder.build()).unwrap_err().to_string()
}

#[test]
fn only_llama_rows_are_put_back() {
    let name = "model.layers.0.self_attn.q_proj.weight";
    let first =
        |source: GgufSource| source.read_f32(name).unwrap().chunks(8).map(|row| row[0]).collect::<Vec<_>>();
    let file_order: Vec<f32> = (0..8).map(|row| 24.0 + 8.0 * row as f32).collect();
    assert_eq!(first(source(&small("qwen2", "qwen2"))), file_order);
    // Two heads of four rows: pairs (0, 1), (2, 3) become halves 0, 2 and 1, 3.
    let expected: Vec<f32> = [0, 2, 1, 3, 4, 6, 5, 7].map(|row: usize| file_order[row]).to_vec();
    assert_eq!(first(source(&small("llama", "default"))), expected);
}

#[test]
fn configs_of_other_families() {
    let qwen = source(&small("qwen3", "qwen2").uint("qwen3.attention.key_length", 16)).config().unwrap();
    let picked =
        ["model_type", "head_dim", "rope_theta", "rms_norm_eps", "tie_word_embeddings", "vocab_size"];
    let picked: Vec<_> = picked.iter().map(|key| qwen[key].clone()).collect();
    assert_eq!(serde_json::json!(picked), serde_json::json!(["qwen3", 16, 500_000.5, 1e-6, true, 3]));
    let mistral =
        source(&small("llama", "default").uint("llama.attention.sliding_window", 32)).config().unwrap();
    assert_eq!((&mistral["model_type"], &mistral["sliding_window"]), (&"mistral".into(), &32.into()));
    let linear = small("llama", "default").text("llama.rope.scaling.type", "linear").value(
        "llama.rope.scaling.factor",
        6,
        &4.0_f32.to_le_bytes(),
    );
    let scaling = source(&linear).config().unwrap()["rope_scaling"].clone();
    assert_eq!(scaling, serde_json::json!({ "rope_type": "linear", "factor": 4.0 }));
    let odd = small("llama", "default").text("llama.rope.scaling.type", "longrope");
    assert!(source(&odd).config().is_err());
    assert!(source(&small("llama", "default").uint("llama.expert_count", 8)).config().is_err());
}

#[test]
fn llama3_scaling_is_found_from_its_frequencies() {
    let with = |factors: &[f32]| {
        let mut builder = small("llama", "llama-bpe").uint("llama.attention.key_length", 8);
        builder = builder.tensor("rope_freqs.weight", &[factors.len() as u64], 0, 96 + 256);
        builder.data.extend(factors.iter().flat_map(|factor| factor.to_le_bytes()));
        let source = source(&builder);
        assert!(!source.names().contains(&"rope_freqs.weight".to_owned()));
        source.config().map(|config| config["rope_scaling"].clone())
    };
    // What transformers' `_compute_llama3_parameters` gives for theta 500000.5 and head_dim 8.
    for (factor, factors) in [(8.0, [1.0, 1.0, 2.694_532, 8.0]), (32.0, [1.0, 1.0, 3.292_265, 32.0])] {
        let expected = serde_json::json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
        assert_eq!(with(&factors).unwrap(), expected);
    }
    for wrong in [&[1.0, 1.0, 3.0, 8.0][..], &[1.0, 1.0, 2.694_532], &[0.0; 4], &[f32::NAN; 4]] {
        let error = with(wrong).unwrap_err();
        assert!(matches!(error, WeightsError::Gguf { source, .. } if *source == GgufError::RopeFrequencies));
    }
}

#[test]
fn each_pre_tokenizer_has_its_pieces() {
    for (pre, steps, add_bos) in [
        ("smollm", 2, false),
        ("gpt-2", 0, false),
        ("default", 5, false),
        ("llama-bpe", 2, true),
        ("qwen2", 2, false),
    ] {
        let tokenizer = source(&small("llama", pre)).tokenizer().unwrap();
        let json: serde_json::Value = serde_json::from_str(&tokenizer.tokenizer_json).unwrap();
        let found = json["pre_tokenizer"]["pretokenizers"].as_array().map_or(0, Vec::len);
        assert_eq!((found, tokenizer.add_bos), (steps, add_bos), "{pre}");
        assert_eq!(json["normalizer"].is_object(), pre == "qwen2");
        assert_eq!(tokenizer.eos.as_deref(), Some("ab"));
    }
    let error = source(&small("llama", "tekken")).tokenizer().unwrap_err();
    let message = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        message.starts_with("tokenizer `gpt2` with pre-tokenizer `tekken` is not supported"),
        "{message}"
    );
}

#[test]
fn damaged_headers_are_named() {
    let mut file = small("llama", "default").build();
    assert_eq!(
        Header::parse(b"GGML").unwrap_err().to_string(),
        "file begins with bytes [47, 47, 4d, 4c], expected `GGUF`"
    );
    file[4] = 1;
    assert_eq!(
        Header::parse(&file).unwrap_err().to_string(),
        "gguf version 1 is not supported, expected 2 or 3"
    );
    file[4..8].copy_from_slice(&[0, 0, 0, 3]);
    assert_eq!(Header::parse(&file).unwrap_err(), GgufError::BigEndian);
    file[4..8].copy_from_slice(&[2, 0, 0, 0]);
    assert!(Header::parse(&file).is_ok());
    for at in [8, 16] {
        let mut file = file.clone();
        file[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(Header::parse(&file), Err(GgufError::Count { got: u64::MAX, .. })));
    }
    for len in 0..file.len() {
        assert!(Header::parse(&file[..len]).is_err(), "cut to {len} bytes");
    }
}

#[test]
fn impossible_tensors_are_named() {
    let with = |name: &str, dims: &[u64], ty, offset| {
        parse_error(&small("llama", "default").tensor(name, dims, ty, offset))
    };
    assert_eq!(
        with("t", &[32], 0, 320),
        "tensor `t` takes 128 bytes at offset 320, but the file has 352 bytes of tensors"
    );
    assert_eq!(
        with("t", &[1], 0, u64::MAX - 31),
        format!(
            "tensor `t` takes 4 bytes at offset {}, but the file has 352 bytes of tensors",
            u64::MAX - 31
        )
    );
    assert_eq!(
        with("t", &[u64::MAX, 2], 0, 0),
        format!("tensor `t` of shape [{}, 2] is too large", u64::MAX)
    );
    assert_eq!(
        with("t", &[31, 2], 3, 0),
        "tensor `t` has rows of 31 values, which are not whole Q4_1 blocks of 32"
    );
    assert_eq!(with("t", &[1], 0, 4), "tensor `t` begins at offset 4, which is not a multiple of 32");
    assert_eq!(with("t", &[1; 5], 0, 0), "tensor `t` has 5 dimensions, expected at most 4");
    assert!(
        with("t", &[1], 20, 0).starts_with("tensor `t` has the ggml type IQ4_NL (20), expected one of F32")
    );
    assert_eq!(with("token_embd.weight", &[1], 0, 0), "tensor `token_embd.weight` appears twice");
}

#[test]
fn impossible_metadata_is_named() {
    let with = |ty, value: &[u8]| parse_error(&small("llama", "default").value("k", ty, value));
    assert_eq!(with(13, &[]), "key `k` has the unknown value type 13");
    let nested = [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0].repeat(9);
    assert_eq!(with(9, &nested), "key `k` nests arrays deeper than 4 levels");
    assert!(with(8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]).starts_with("a metadata text at byte "));
    assert_eq!(
        parse_error(&small("llama", "default").uint("general.alignment", 33)),
        "alignment 33 is not a power of two"
    );
    let twice = small("llama", "default").uint("k", 1).uint("k", 1);
    assert_eq!(parse_error(&twice), "key `k` appears twice");
}

#[test]
fn models_that_are_not_supported() {
    let open = |builder: &Builder| {
        let (_folder, path) = write(&builder.build());
        match GgufSource::open(&path) {
            Err(WeightsError::Gguf { source, .. }) => *source,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("opened"),
        }
    };
    assert!(matches!(open(&small("mamba", "default")), GgufError::Architecture { got } if got == "mamba"));
    let odd = small("qwen2", "default").tensor("blk.0.ssm_a", &[1], 0, 0);
    assert!(matches!(open(&odd), GgufError::TensorName { tensor, .. } if tensor == "blk.0.ssm_a"));
    let odd = small("llama", "default").tensor("blk.0.attn_k.weight", &[8, 3], 0, 0);
    assert!(matches!(open(&odd), GgufError::Heads { rows: 3, heads: 1, .. }));
}

/// Everything that is computed from a header, as [`GgufSource`] does.
fn exercise(file: &[u8]) {
    let Ok(header) = Header::parse(file) else { return };
    for tensor in &header.tensors {
        assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= file.len());
    }
    let Ok(family) = Family::of(&header, file) else { return };
    for (index, rows) in names::hugging_face(&header, file, family).unwrap_or_default().into_values() {
        let tensor = &header.tensors[index];
        if let Some(plain) = plain(tensor, rows, file) {
            let mut values = vec![0.0; plain.len()];
            plain.read(0, &mut values);
            assert_eq!(values.len(), tensor.len());
        }
    }
    let _ = config::build(&header, file, family);
    let _ = tokenizer::build(&header, file);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50_000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(version in 2_u32..4, counts in any::<(u8, u8)>(), rest in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut file = MAGIC.to_vec();
        file.extend(version.to_le_bytes());
        file.extend(u64::from(counts.0 % 4).to_le_bytes());
        file.extend(u64::from(counts.1 % 4).to_le_bytes());
        file.extend(rest);
        exercise(&file);
    }

    #[test]
    fn mutated_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        truncate in prop::bool::weighted(0.2),
    ) {
        let mut file = small("llama", "default").build();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if truncate {
            file.truncate(cut.index(file.len()));
        }
        exercise(&file);
    }
}
