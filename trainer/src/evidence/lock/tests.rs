use std::path::Path;

use super::*;
use crate::provenance::{Origin, Statement};

fn file(name: &str) -> File {
    File { name: name.to_owned(), bytes: 3, sha256: hash_text(name) }
}

fn license() -> Statement {
    let text = |text: &str| Some(text.to_owned());
    Statement { id: "llama3.1".to_owned(), name: text("n"), link: text("https://l"), from: Origin::Card }
}

fn source(name: &str) -> Source {
    Source {
        source: name.to_owned(),
        revision: Some("rev".to_owned()),
        records: 2,
        files: vec![file(name)],
        license: Some(license()),
    }
}

/// A lock in which every field is present.
fn full() -> Lock {
    let text = "version = 1\noutput = 'o'\nmodel.source = 'm'\ndata.train = [{source = 'd', format = 'text'}]\n\
                train.batch_size = 1\ntrain.steps = 1\n";
    let typed = crate::recipe::parse(text, Path::new("r/recipe.toml"), &[]).expect("valid");
    let device = Device { class: "cpu".to_owned(), isa: "avx2".to_owned() };
    let model = ModelFiles {
        source: "m".to_owned(),
        revision: Some("rev".to_owned()),
        tokenizer_sha256: "t".to_owned(),
        chat_template_sha256: Some("c".to_owned()),
        files: vec![file("a"), file("b")],
        adapter_files: vec![file("old")],
        license: Some(license()),
    };
    let data = DataFiles { train: vec![source("d")], eval: vec![source("e")] };
    let order = Order { train_sha256: "o".to_owned(), eval_sha256: Some("p".to_owned()) };
    let samples = Samples {
        train: 1,
        eval: 2,
        truncated: 3,
        dropped: 4,
        tokens: 5,
        trained_tokens: 6,
        sequences: 7,
        total_steps: 8,
        order,
    };
    let mut lock = Lock::new(&Recipe::resolve(typed).expect("valid"), device, model, data, samples);
    lock.results = Some(Results {
        steps: 8,
        trained_tokens: 9,
        final_loss: Some(0.1 + 0.2),
        eval_loss_before: Some(1.0 / 3.0),
        eval_loss_after: Some(1e-300),
        adapter_sha256: "v".to_owned(),
        early: vec![EarlyStep { step: 1, loss: 2.5, grad_norm: 0.7, adapter_sha256: "w".to_owned() }],
        mesh: MeshResult { data: 2, tensor: 3 },
        files: vec![file("adapter/adapter_model.safetensors")],
    });
    lock.recipe_file = Some(file("../r/recipe.toml"));
    lock.tool.commit = Some("abc".to_owned());
    lock
}

#[test]
fn is_read_back_bit_for_bit() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("run.lock");
    let lock = full();
    lock.write(&path).expect("written");
    let again = Lock::read(&path).expect("read");
    assert_eq!(again, lock);
    assert_eq!(again.to_toml(), lock.to_toml());
    let order = [
        "version =",
        "[tool]",
        "[device]",
        "[recipe.model]",
        "\n[model]",
        "[[data.train]]",
        "[samples]",
        "[results]",
        "[seal]",
    ];
    let text = lock.to_toml();
    let places: Vec<_> = order.iter().map(|part| text.find(part).expect(part)).collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn the_input_digest_covers_inputs_only() {
    let lock = full();
    let digest = lock.input_digest();
    assert_eq!(Lock { results: None, ..lock.clone() }.input_digest(), digest);
    let mut elsewhere = Lock { recipe_file: None, ..lock.clone() };
    elsewhere.tool.commit = None;
    elsewhere.recipe.insert("output".to_owned(), toml::Value::String("x".to_owned()));
    assert_eq!(elsewhere.input_digest(), digest);
    let mut unasked = lock.clone();
    (unasked.model.license, unasked.data.train[0].license) = (None, None);
    assert_eq!(unasked.input_digest(), digest);
    let mut other = lock.clone();
    other.data.train[0].files[0].sha256.push('0');
    assert_ne!(other.input_digest(), digest);
    let mut other = lock;
    other.samples.order.train_sha256.push('0');
    assert_ne!(other.input_digest(), digest);
}

/// Any byte of the file, changed to anything.
#[test]
fn a_changed_byte_anywhere_is_found() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("run.lock");
    let whole = full().to_toml().into_bytes();
    for at in 0..whole.len() {
        for flip in [1, 0x20, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            fs_err::write(&path, &bytes).expect("written");
            Lock::read(&path).expect_err(&format!("byte {at} xor {flip}"));
        }
    }
    for bytes in [&whole[..whole.len() - 1], &[&whole[..], b"\n"].concat()] {
        fs_err::write(&path, bytes).expect("written");
        assert!(matches!(Lock::read(&path), Err(LockError::NoSeal { .. })));
    }
}

#[test]
fn refuses_other_files() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("run.lock");
    assert!(matches!(Lock::read(&path), Err(LockError::Read { .. })));
    fs_err::write(&path, "[").expect("written");
    assert!(matches!(Lock::read(&path), Err(LockError::NotALock { .. })));
    for text in ["x = 1", "version = 2\n"] {
        fs_err::write(&path, text).expect("written");
        assert!(matches!(Lock::read(&path), Err(LockError::NoSeal { .. })), "{text}");
    }
    let sealed = format!("version = 2\n\n[seal]\nsha256 = \"{}\"\n", hash_text("version = 2\n"));
    fs_err::write(&path, sealed).expect("written");
    assert!(matches!(Lock::read(&path), Err(LockError::NotALock { .. })));
    fs_err::write(&path, "version = 1\n").expect("written");
    let error = Lock::read(&path).expect_err("version");
    assert!(error.to_string().ends_with("has lock version 1, only 2 is known"), "{error}");
}

#[test]
fn every_field_is_in_the_reference_page() {
    fn fields(prefix: &str, value: &toml::Value, out: &mut Vec<String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table.iter().filter(|(key, _)| !prefix.is_empty() || *key != "recipe") {
                    let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    fields(&key, value, out);
                }
            }
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                for item in items {
                    fields(prefix, item, out);
                }
            }
            _ => out.push(prefix.to_owned()),
        }
    }
    let page = include_str!("../../../../docs/lock.md");
    let mut keys = Vec::new();
    fields("", &toml::from_str(&full().to_toml()).expect("TOML"), &mut keys);
    assert!(keys.contains(&"model.files.sha256".to_owned()) && keys.len() > 30, "{keys:?}");
    for key in keys {
        // Held-out sources have the fields of training sources.
        let key = key.replace("data.eval.", "data.train.");
        assert!(page.contains(&format!("| `{key}` |")), "`{key}` is not in docs/lock.md");
    }
}
