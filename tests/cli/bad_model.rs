//! Models and adapters that cannot be used: exit code 2, and the output folder stays free.

use insta::assert_snapshot;
use serde_json::json;

use crate::stage::Stage;
use crate::weights::Tensors;

const WEIGHTS: &str = "model/model.safetensors";
const Q: &str = "model.layers.0.self_attn.q_proj.weight";

/// Breaks the weights of a fresh stage.
fn with_weights(change: impl FnOnce(&mut Tensors)) -> Stage {
    let stage = Stage::new();
    let path = stage.path(WEIGHTS);
    let mut tensors = Tensors::read(&path);
    change(&mut tensors);
    tensors.write(&path);
    stage
}

#[test]
fn no_config() {
    let stage = Stage::new();
    fs_err::remove_file(stage.path("model/config.json")).unwrap();
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not read `[HERE]/model/config.json`
      Caused by: failed to open file `[HERE]/model/config.json`: No such file or directory (os error 2)

    hint: a model folder holds `config.json` beside its weights
    "#);
}

#[test]
fn config_that_is_not_json() {
    let stage = Stage::new();
    stage.write("model/config.json", "{\"model_type\": \"llama\",\n \"hidden_size\": }");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not read `[HERE]/model/config.json`
      Caused by: expected value at line 2 column 17

    hint: the file may be incomplete or damaged: fetch it again
    "#);
}

#[test]
fn unknown_model_type() {
    let stage = Stage::new();
    stage.edit("model/config.json", "\"model_type\": \"llama\"", "\"model_type\": \"mamba\"");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not use the configuration of `[HERE]/model`
      Caused by: unknown `model_type` `mamba`; supported: `llama`, `mistral`, `qwen2`, `qwen3`

    hint: use a model of a supported architecture
    "#);
}

#[test]
fn heads_that_do_not_divide() {
    let stage = Stage::new();
    stage.edit("model/config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not use the configuration of `[HERE]/model`
      Caused by: `num_attention_heads` (4) is not a multiple of `num_key_value_heads` (3)

    hint: `config.json` may be damaged or edited: fetch it again
    "#);
    stage.edit("model/config.json", "  \"head_dim\": 16,\n", "");
    stage.edit("model/config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not use the configuration of `[HERE]/model`
      Caused by: `num_attention_heads` (5) is not a multiple of `num_key_value_heads` (3)

    hint: `config.json` may be damaged or edited: fetch it again
    "#);
}

#[test]
fn size_of_another_type() {
    let stage = Stage::new();
    stage.edit("model/config.json", "\"hidden_size\": 64", "\"hidden_size\": \"64\"");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not use the configuration of `[HERE]/model`
      Caused by: `hidden_size` in `config.json` must be an integer, found `"64"`

    hint: `config.json` may be damaged or edited: fetch it again
    "#);
}

#[test]
fn tokenizer_larger_than_the_embedding() {
    let stage = Stage::new();
    stage.copy("data/tokenizer.json", "model/tokenizer.json");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: the tokenizer of `[HERE]/model` has ids up to 420, but the embedding has 256 rows

    hint: use the tokenizer that belongs to these weights
    "#);
}

#[test]
fn tokenizer_that_is_not_one() {
    let stage = Stage::new();
    stage.write("model/tokenizer.json", "{\"model\": {}}");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not use the tokenizer of `[HERE]/model`
      Caused by: `tokenizer.json` is not valid: data did not match any variant of untagged enum ModelUntagged at line 1 column 13

    hint: fetch the model's tokenizer files again
    "#);
}

#[test]
fn no_weights() {
    let stage = Stage::new();
    fs_err::remove_file(stage.path(WEIGHTS)).unwrap();
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: no weights in `[HERE]/model`: expected `model.safetensors`, `model.safetensors.index.json` or one `.gguf` file

    hint: point `model.source` at the folder that holds the weights
    "#);
}

#[test]
fn truncated_weights() {
    let stage = Stage::new();
    let file = fs_err::read(stage.path(WEIGHTS)).unwrap();
    stage.write(WEIGHTS, &file[..file.len() - 100]);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not read `[HERE]/model/model.safetensors`
      Caused by: file ends early: tensors take 378112 bytes, got 378012

    hint: the file may be incomplete or damaged: compare its size and sha256 with the source, or fetch it again
    "#);
    stage.write(WEIGHTS, &file[..1000]);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not read `[HERE]/model/model.safetensors`
      Caused by: file ends inside the header: expected 2144 bytes, got 1000

    hint: the file may be incomplete or damaged: compare its size and sha256 with the source, or fetch it again
    "#);
    stage.write(WEIGHTS, &file[..5]);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not read `[HERE]/model/model.safetensors`
      Caused by: file ends inside the header length: expected 8 bytes, got 5

    hint: the file may be incomplete or damaged: compare its size and sha256 with the source, or fetch it again
    "#);
}

#[test]
fn oversized_header() {
    let stage = Stage::new();
    let mut file = fs_err::read(stage.path(WEIGHTS)).unwrap();
    file[..8].copy_from_slice(&(1_u64 << 62).to_le_bytes());
    stage.write(WEIGHTS, &file);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not read `[HERE]/model/model.safetensors`
      Caused by: header of 4611686018427387904 bytes is longer than the limit of 100000000 bytes

    hint: the file may be incomplete or damaged: compare its size and sha256 with the source, or fetch it again
    "#);
}

#[test]
fn overlapping_tensors() {
    let stage = with_weights(|tensors| {
        let offsets = &mut tensors.header[Q]["data_offsets"];
        let (begin, end) = (offsets[0].as_u64().unwrap() - 64, offsets[1].as_u64().unwrap() - 64);
        *offsets = json!([begin, end]);
    });
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not read `[HERE]/model/model.safetensors`
      Caused by: tensor `model.layers.0.self_attn.q_proj.weight` begins at byte 229824 inside tensor `model.layers.0.self_attn.o_proj.weight`, which ends at byte 229888

    hint: the file may be incomplete or damaged: compare its size and sha256 with the source, or fetch it again
    "#);
}

#[test]
fn gguf_with_absurd_counts() {
    let stage = Stage::new();
    stage.edit("recipe.toml", "\"model\"", "\"model.gguf\"");
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(u64::MAX.to_le_bytes());
    file.extend(1_u64.to_le_bytes());
    file.extend([0; 64]);
    stage.write("model.gguf", &file);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not read `[HERE]/model.gguf`
      Caused by: tensor count 18446744073709551615 cannot be true: the rest of the file has room for 3

    hint: the file may be incomplete or damaged: compare its size and sha256 with the source, or fetch it again
    "#);
    file[8..16].copy_from_slice(&1_u64.to_le_bytes());
    file[16..24].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    stage.write("model.gguf", &file);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not read `[HERE]/model.gguf`
      Caused by: metadata count 1099511627776 cannot be true: the rest of the file has room for 4

    hint: the file may be incomplete or damaged: compare its size and sha256 with the source, or fetch it again
    "#);
}

#[test]
fn truncated_gguf() {
    let stage = Stage::new();
    stage.copy("models/gguf-llama/model.gguf", "model.gguf");
    stage.edit("recipe.toml", "\"model\"", "\"model.gguf\"");
    let file = fs_err::read(stage.path("model.gguf")).unwrap();
    stage.write("model.gguf", &file[..file.len() - 1000]);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not read `[HERE]/model.gguf`
      Caused by: tensor `blk.1.attn_v.weight` takes 4096 bytes at offset 109568, but the file has 112920 bytes of tensors

    hint: the file may be incomplete or damaged: compare its size and sha256 with the source, or fetch it again
    "#);
}

#[test]
fn missing_tensor() {
    let stage = with_weights(|tensors| {
        let entry = tensors.header.remove(Q).unwrap();
        tensors.header.insert("model.layers.0.self_attn.query.weight".to_owned(), entry);
    });
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not load the model `[HERE]/model`
      Caused by: tensor `model.layers.0.self_attn.q_proj.weight` is missing

    hint: the checkpoint and its `config.json` may be of different models
    "#);
}

#[test]
fn tensor_of_another_shape() {
    let stage = Stage::new();
    stage.edit("model/config.json", "\"intermediate_size\": 96", "\"intermediate_size\": 128");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not load the model `[HERE]/model`
      Caused by: tensor `model.layers.0.mlp.gate_proj.weight` in `[HERE]/model/model.safetensors` is [96, 64], but `config.json` says [128, 64]

    hint: check that `config.json` belongs to these weights
    "#);
}

/// The output folder is free again once the weights are mended.
#[test]
fn weight_that_is_not_a_number() {
    let whole = fs_err::read(Stage::new().path(WEIGHTS)).unwrap();
    let stage = with_weights(|tensors| {
        let at = tensors.begin(Q) + 4 * 70;
        tensors.data[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    model: model (llama, 0.1 M parameters, 2 layers)
    data: 16 samples, 256 tokens, 240 trained; 0 samples held out
    adapter: 14 layers, 0.00 M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 16 sequences an epoch; 4 steps
    licences: base unknown; data unknown
    error: could not load the model `[HERE]/model`
      Caused by: tensor `model.layers.0.self_attn.q_proj.weight` in `[HERE]/model/model.safetensors` holds NaN at element 70

    hint: fetch the checkpoint again, or use one without broken weights
    "#);
    stage.write(WEIGHTS, whole);
    assert!(stage.train("--quiet").starts_with("exit 0"));
}

#[test]
fn quantized_otherwise() {
    let stage = Stage::new();
    stage.copy("models/llama-bnb-nf4", "model");
    assert_snapshot!(stage.train("--set model.quantize=int8"), @r#"
    exit 2
    ----- stderr
    error: could not load the model `[HERE]/model`
      Caused by: tensor `model.layers.0.self_attn.q_proj.weight` is stored as `nf4`, but `model.quantize` asks for `int8`

    hint: set `model.quantize = "nf4"`, or use the checkpoint before quantization
    "#);
}

#[test]
fn adapter_of_another_model() {
    let stage = Stage::new();
    stage.copy("peft/adapter_final_lora", "adapter");
    stage.edit("recipe.toml", "rank = 2", "from = \"adapter\"");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `adapter.from` (`adapter`)
      Caused by: tensor `base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight` has shape [4, 576], expected [4, 64]

    hint: the adapter was made for another model
    "#);
}

#[test]
fn broken_adapter() {
    let stage = Stage::new();
    let eval = "eval model --adapter run/adapter --data data.jsonl --format tokens";
    assert_snapshot!(stage.seedcorn(eval), @r#"
    exit 2
    ----- stderr
    error: could not use the adapter `run/adapter`
      Caused by: failed to query resolved metadata `run/adapter/adapter_config.json`: No such file or directory (os error 2)

    hint: an adapter is a folder with `adapter_config.json` and `adapter_model.safetensors`
    "#);
    assert!(stage.train("--quiet").starts_with("exit 0"));
    let path = stage.path("run/adapter/adapter_model.safetensors");
    let whole = fs_err::read(&path).unwrap();
    fs_err::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert_snapshot!(stage.seedcorn(eval), @r#"
    exit 2
    ----- stderr
    error: could not use the adapter `run/adapter`
      Caused by: `run/adapter/adapter_model.safetensors` is not a valid safetensors file
      Caused by: incomplete metadata, file not fully covered

    hint: the adapter may be incomplete or damaged: copy or export it again
    "#);

    fs_err::write(&path, &whole).unwrap();
    stage.edit("run/adapter/adapter_config.json", "\"use_dora\": false", "\"use_dora\": true");
    assert_snapshot!(stage.seedcorn(eval), @r#"
    exit 2
    ----- stderr
    error: could not use the adapter `run/adapter`
      Caused by: `use_dora` = true in `adapter_config.json` is not supported; supported: null or off

    hint: train or export the adapter without this setting
    "#);
    stage.edit("run/adapter/adapter_config.json", "\"use_dora\": true", "\"use_dora\": false");

    let mut tensors = Tensors::read(&path);
    let name = tensors.header.keys().find(|name| name.ends_with("lora_A.weight")).unwrap().clone();
    let at = tensors.begin(&name);
    tensors.data[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    tensors.write(&path);
    assert_snapshot!(stage.seedcorn(eval), @r#"
    exit 2
    ----- stderr
    error: could not use the adapter `run/adapter`
      Caused by: tensor `base_model.model.model.layers.0.mlp.down_proj.lora_A.weight` is not finite at element 0

    hint: the adapter may be incomplete or damaged: copy or export it again
    "#);
}
