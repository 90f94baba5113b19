//! Folders and files of the user.

use std::collections::BTreeMap;

use super::{noise, resolver};
use crate::source::hash::hash_text;
use crate::source::{Resolver, Source, SourceError, resolve};

fn names(folder: &std::path::Path, resolver: &Resolver) -> Vec<String> {
    let resolved = resolve(&Source::Folder(folder.to_owned()), resolver).unwrap();
    assert_eq!(resolved.root, folder);
    resolved.files.into_iter().map(|file| file.name).collect()
}

#[test]
fn a_file_is_hashed_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.jsonl");
    let source = Source::File(path.clone());
    for content in ["one", "two"] {
        fs_err::write(&path, content).unwrap();
        let resolved = resolve(&source, &resolver(dir.path())).unwrap();
        assert_eq!(resolved.root, path);
        assert_eq!(resolved.files.len(), 1);
        assert_eq!(source.file_name().as_ref(), Some(&resolved.files[0].name));
        let file = resolved.file("train.jsonl").unwrap();
        assert_eq!((file.bytes, &file.sha256), (3, &hash_text(content)));
    }
}

#[test]
fn a_model_folder_gives_the_files_of_the_model_only() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    fs_err::create_dir_all(&model).unwrap();
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let index =
        format!(r#"{{"weight_map":{{"a":"{}","b":"{}","c":"{}"}}}}"#, shards[1], shards[0], shards[1]);
    fs_err::write(model.join("model.safetensors.index.json"), index).unwrap();
    for name in ["config.json", "tokenizer.json", "modeling_x.py", "consolidated.safetensors", shards[0]] {
        fs_err::write(model.join(name), name).unwrap();
    }
    let missing = resolve(&Source::Folder(model.clone()), &resolver(dir.path())).unwrap_err();
    assert!(missing.to_string().contains(shards[1]), "{missing}");
    fs_err::write(model.join(shards[1]), noise(1, 100)).unwrap();
    let expected = ["config.json", shards[0], shards[1], "model.safetensors.index.json", "tokenizer.json"];
    assert_eq!(names(&model, &resolver(dir.path())), expected);
}

#[test]
fn shard_names_stay_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("config.json"), "{}").unwrap();
    for shard in ["../secret.safetensors", "/etc/x.safetensors", "model.bin", "a/../../b.safetensors"] {
        let index = serde_json::json!({ "weight_map": { "a": shard } }).to_string();
        fs_err::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        let error = resolve(&Source::Folder(dir.path().to_owned()), &resolver(dir.path())).unwrap_err();
        assert!(matches!(error, SourceError::BadIndex { .. }), "{shard}: {error}");
    }
}

#[test]
fn another_folder_gives_all_but_hidden_files() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs_err::create_dir_all(data.join("sub/.git")).unwrap();
    for name in ["b.jsonl", "a.csv", "sub/c.json", "sub/.git/x", ".hidden"] {
        fs_err::write(data.join(name), name).unwrap();
    }
    #[cfg(unix)]
    {
        // A link to a file counts (the hub's cache is made of them), one to a folder could be a loop.
        fs_err::os::unix::fs::symlink(data.join("a.csv"), data.join("z.csv")).unwrap();
        fs_err::os::unix::fs::symlink(&data, data.join("sub/loop")).unwrap();
        assert_eq!(names(&data, &resolver(dir.path())), ["a.csv", "b.jsonl", "sub/c.json", "z.csv"]);
    }
}

#[test]
fn pins_are_compared_and_must_match_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    fs_err::write(&path, "content").unwrap();
    let with = |name: &str, pin: &str| {
        let pins = BTreeMap::from([(name.to_owned(), pin.to_owned())]);
        resolve(&Source::File(path.clone()), &resolver(dir.path()).with_pins(pins))
    };
    let (right, wrong) = (hash_text("content"), hash_text("other"));
    with("a.jsonl", &right).unwrap();
    with("a.jsonl", &format!("sha256:{}", right.to_uppercase())).unwrap();
    let error = with("a.jsonl", &wrong).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("a.jsonl") && message.contains(&right) && message.contains(&wrong), "{message}");
    assert!(error.hint().unwrap().contains(&right));
    assert!(matches!(with("b.jsonl", &right).unwrap_err(), SourceError::UnmatchedPin { .. }));
    assert!(matches!(with("a.jsonl", "abc").unwrap_err(), SourceError::MalformedPin { .. }));
}
