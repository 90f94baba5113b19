//! Merged folders are read back and compared value by value with sums done here.

use std::path::{Path, PathBuf};

use seedcorn_adapters::lora::LoraWeights;
use seedcorn_data::source::Resolver;
use serde_json::Value;

use super::{Merge, Rival, RoundTrip, Target};
use crate::base::{self, Base};
use crate::export::ExportDtype;
use crate::recipe::Quantize;

fn fixture(name: &str) -> String {
    format!("{}/../tests/fixtures/models/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn open(path: &str) -> Base {
    base::open(path, Path::new(""), &Resolver::from_lookup(|_| None)).unwrap()
}

/// An adapter on the layers whose name ends so, with values that are neither zero nor alike.
fn adapter(base: &Base, suffix: &str) -> Vec<LoraWeights> {
    let values = |n: usize, step: usize| (0..n).map(|i| ((i * step % 17) as f32 - 8.0) / 100.0).collect();
    let modules = base.linear_modules().into_iter().filter(|module| module.name.ends_with(suffix));
    modules
        .map(|module| LoraWeights {
            rank: 2,
            scale: 1.5,
            a: values(2 * module.in_features, 5),
            b: values(2 * module.out_features, 7),
            in_features: module.in_features,
            out_features: module.out_features,
            name: module.name,
        })
        .collect()
}

fn merge<'a>(base: &'a Base, adapter: &'a [LoraWeights], path: &'a Path) -> Merge<'a> {
    let (dtype, target) = (ExportDtype::F32, Target::Full);
    Merge { base, adapter, path, dtype, target, round_trip: RoundTrip::QLORA, shard_bytes: 1 << 30 }
}

/// `w + scale * (b a)` in f64 at one place.
fn expected(weight: f32, adapter: &LoraWeights, at: usize) -> f64 {
    let (row, column) = (at / adapter.in_features, at % adapter.in_features);
    let product = |k: usize| {
        f64::from(adapter.b[row * adapter.rank + k]) * f64::from(adapter.a[k * adapter.in_features + column])
    };
    f64::from(weight) + f64::from(adapter.scale) * (0..adapter.rank).map(product).sum::<f64>()
}

/// Compares every tensor of a written folder with what it must hold.
fn check_weights(base: &Base, adapter: &[LoraWeights], path: &Path, before: impl Fn(&str) -> Vec<f32>) {
    let back = open(&path.display().to_string());
    let names: Vec<String> = base.spec.parameters().iter().map(|(p, _)| base.spec.tensor_name(*p)).collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(back.weights.names(), sorted);
    for name in names {
        let (read, weight) = (back.weights.read_f32(&name).unwrap(), before(&name));
        let layer = adapter.iter().find(|one| format!("{}.weight", one.name) == name);
        for (at, (read, weight)) in read.iter().zip(&weight).enumerate() {
            let expected = layer.map_or(f64::from(*weight), |layer| expected(*weight, layer, at));
            assert!((f64::from(*read) - expected).abs() < 1e-6, "{name}[{at}]: {read}, expected {expected}");
        }
        assert_eq!(read.len(), weight.len());
    }
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

#[test]
fn a_gguf_becomes_a_folder() {
    let (base, root) = (open(&fixture("gguf-llama/model.gguf")), tempfile::tempdir().unwrap());
    let (adapter, path) = (adapter(&base, "_proj"), root.path().join("merged"));
    let merged = merge(&base, &adapter, &path).run().unwrap();
    check_weights(&base, &adapter, &path, |name| base.weights.read_f32(name).unwrap());

    assert!(merged.read_back.relative() < 1e-5, "{merged:?}");
    assert_eq!(merged.read_back.same, merged.read_back.tokens);
    let Rival::Measured(rival) = merged.rival else { panic!("{merged:?}") };
    assert!(rival.max > 100.0 * merged.read_back.max, "4 bits make a difference: {merged:?}");

    let generation = json(path.join("generation_config.json"));
    assert_eq!((&generation["bos_token_id"], &generation["eos_token_id"]), (&1.into(), &2.into()));
    assert_eq!(json(path.join("config.json"))["torch_dtype"], "float32");
    let tokenizer = json(path.join("tokenizer_config.json"));
    assert_eq!(tokenizer["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(tokenizer["model_max_length"], 128);
    let (ours, theirs) = (open(&path.display().to_string()), base.tokenizer.as_ref().unwrap());
    let text = "It was 12 o'clock<|im_end|>\n";
    let tokenizer = ours.tokenizer.unwrap();
    assert_eq!(tokenizer.encode(text, true).unwrap(), theirs.encode(text, true).unwrap());
    assert_eq!(tokenizer.parts().chat_template, theirs.parts().chat_template);
}

#[test]
fn the_dequantized_weights_are_those_of_loading() {
    let (base, root) = (open(&fixture("gguf-llama/model.gguf")), tempfile::tempdir().unwrap());
    let (adapter, path) = (adapter(&base, "v_proj"), root.path().join("merged"));
    for (quantize, double_quant) in [(Quantize::Nf4, true), (Quantize::Nf4, false), (Quantize::Int8, false)] {
        let round_trip = RoundTrip { quantize, double_quant };
        let merge = Merge { target: Target::Dequantized, round_trip, ..merge(&base, &adapter, &path) };
        let merged = merge.run().unwrap();
        check_weights(&base, &adapter, &path, |name| {
            let values = base.weights.read_f32(name).unwrap();
            let module = base.linear_modules().into_iter().find(|m| format!("{}.weight", m.name) == name);
            match (module.map(|module| [module.out_features, module.in_features]), quantize) {
                (None, _) => values,
                (Some(shape), Quantize::Int8) => {
                    seedcorn_kernels::int8::quantize(&values, shape).dequantize()
                }
                (Some(shape), _) => {
                    seedcorn_kernels::nf4::quantize(&values, shape, 64, double_quant).dequantize()
                }
            }
        });
        assert!(merged.read_back.relative() < 1e-5, "{merged:?}");
        assert!(matches!(merged.rival, Rival::Measured(rival) if rival.max > 0.0), "{merged:?}");
    }
}

#[test]
fn a_quantized_checkpoint_has_one_set_of_weights() {
    let (base, root) = (open(&fixture("llama-bnb-nf4")), tempfile::tempdir().unwrap());
    let (adapter, path) = (adapter(&base, "q_proj"), root.path().join("merged"));
    for target in [Target::Full, Target::Dequantized] {
        let merged = Merge { target, ..merge(&base, &adapter, &path) }.run().unwrap();
        assert_eq!(merged.rival, Rival::Same);
        assert!(merged.read_back.relative() < 1e-5, "{merged:?}");
        check_weights(&base, &adapter, &path, |name| base.weights.read_f32(name).unwrap());
        assert!(json(path.join("config.json")).get("quantization_config").is_none());
        assert!(!path.join("tokenizer.json").exists());
    }
}

#[test]
fn bf16_and_shards_read_back_within_their_bound() {
    let (base, root) = (open(&fixture("gguf-llama/model.gguf")), tempfile::tempdir().unwrap());
    let (adapter, path) = (adapter(&base, "down_proj"), root.path().join("merged"));
    let merge = Merge { dtype: ExportDtype::Bf16, shard_bytes: 50_000, ..merge(&base, &adapter, &path) };
    let merged = merge.run().unwrap();
    assert!(merged.files.0 > 1, "{merged:?}");
    assert!(
        merged.read_back.relative() > 0.0 && merged.read_back.relative() < merged.tolerance,
        "{merged:?}"
    );
    let lines = merged.lines();
    assert!(
        lines[1].contains("; within the ") && lines[2].starts_with("merged into the full weights"),
        "{lines:?}"
    );
    // The folder is a base as any other: a second merge copies its side files.
    let (again, second) = (open(&path.display().to_string()), root.path().join("second"));
    Merge { dtype: ExportDtype::Bf16, ..self::merge(&again, &adapter, &second) }.run().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        assert_eq!(fs_err::read(path.join(name)).unwrap(), fs_err::read(second.join(name)).unwrap());
    }
}

#[test]
fn the_base_is_not_written_over() {
    let root = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs_err::copy(PathBuf::from(fixture("llama-bnb-nf4")).join(name), root.path().join(name)).unwrap();
    }
    let base = open(&root.path().display().to_string());
    let adapter = adapter(&base, "q_proj");
    let fault = merge(&base, &adapter, root.path()).run().unwrap_err().to_string();
    assert!(fault.ends_with("is the base model's own folder"), "{fault}");
}
