//! Files of a hub on this machine.

use std::path::Path;

use super::hub_server::{COMMIT, Content, Hub, REPO};
use super::{files_below, noise, resolver};
use crate::source::{Resolved, Resolver, Source, SourceError, Token, resolve};

fn settings(dir: &Path, hub: &Hub) -> Resolver {
    let mut resolver = resolver(dir);
    resolver.hub.endpoint.clone_from(&hub.endpoint);
    resolver
}

fn get(text: &str, resolver: &Resolver) -> Result<Resolved, SourceError> {
    resolve(&Source::parse(text, Path::new("/")).unwrap(), resolver)
}

fn model() -> Content {
    Content::new(&[
        ("config.json", b"{}"),
        ("tokenizer.json", b"{\"version\":\"1.0\"}"),
        ("chat_template.jinja", b"{{ messages }}"),
        ("model.safetensors", &noise(1, 300_000)),
        ("modeling_evil.py", b"import os"),
        ("README.md", b"# model"),
    ])
}

#[test]
fn a_model_is_fetched_once_then_found_offline() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = model();
    content.token = Some("hf_secret".to_owned());
    let hub = content.serve();
    let mut resolver = settings(dir.path(), &hub);
    resolver.hub.token = Token::new("hf_secret\n");
    resolver.hub.offline = true;
    assert!(matches!(get("hf:org/name", &resolver).unwrap_err(), SourceError::Offline { .. }));
    resolver.hub.offline = false;
    let first = get("hf:org/name", &resolver).unwrap();
    assert_eq!(first.revision.as_deref(), Some(COMMIT));
    let names: Vec<&str> = first.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]);
    for file in &first.files {
        assert_eq!(first.root.join(&file.name), file.path);
    }
    let weights = first.file("model.safetensors").unwrap();
    assert_eq!(fs_err::read(&weights.path).unwrap(), noise(1, 300_000));
    assert_eq!(weights.bytes, 300_000);
    let requests = hub.requests();
    assert!(requests.iter().any(|url| url.starts_with("/cdn/")), "{requests:?}");
    assert!(!requests.iter().any(|url| url.contains(".py")), "{requests:?}");

    assert_eq!(get("hf:org/name@main", &resolver).unwrap(), first);
    assert_eq!(hub.requests().len(), requests.len(), "the second run asks nothing");
    drop(hub);
    resolver.offline = true;
    resolver.verify = true;
    assert_eq!(get("hf:org/name", &resolver).unwrap(), first);
}

#[test]
fn files_of_the_shared_cache_are_not_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let hub = model().serve();
    let mut resolver = settings(dir.path(), &hub);
    let first = get("hf:org/name", &resolver).unwrap();
    resolver.cache_dir = dir.path().join("another");
    let before = hub.requests().iter().filter(|url| url.contains("tokenizer.json")).count();
    assert_eq!(get("hf:org/name", &resolver).unwrap(), first);
    let after = hub.requests().iter().filter(|url| url.contains("tokenizer.json")).count();
    // Our look at the headers, the client's own, the content; then our look only.
    assert_eq!((before, after), (3, 4));
}

#[test]
fn shards_follow_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let index = serde_json::json!({ "weight_map": { "a": shards[1], "b": shards[0] } }).to_string();
    let mut content = Content::new(&[
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index.as_bytes()),
        (shards[0], &noise(1, 1000)),
        (shards[1], &noise(2, 1000)),
        ("other.safetensors", b"x"),
    ]);
    let hub = content.clone().serve();
    let resolved = get("hf:org/name", &settings(dir.path(), &hub)).unwrap();
    let names: Vec<&str> = resolved.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["config.json", shards[0], shards[1], "model.safetensors.index.json"]);

    let evil = br#"{"weight_map":{"a":"../../../../evil.safetensors"}}"#.to_vec();
    content.files.insert("model.safetensors.index.json".to_owned(), evil);
    let dir = tempfile::tempdir().unwrap();
    let hub = content.serve();
    let error = get("hf:org/name", &settings(dir.path(), &hub)).unwrap_err();
    assert!(matches!(error, SourceError::BadIndex { .. }), "{error:?}");
}

#[test]
fn single_files_of_models_and_data_sets() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Content::new(&[("q4/m.gguf", &noise(5, 5000)), ("data/train.jsonl", b"{}\n")]).serve();
    let resolver = settings(dir.path(), &hub);
    let gguf = get("hf:org/name@main/q4/m.gguf", &resolver).unwrap();
    let parsed = |text| Source::parse(text, Path::new("/")).unwrap().file_name();
    assert_eq!(parsed("hf:org/name@main/q4/m.gguf").as_deref(), Some("m.gguf"));
    assert_eq!(parsed("hf:org/name"), None);
    assert_eq!((gguf.files.len(), gguf.files[0].name.as_str()), (1, "m.gguf"));
    assert_eq!(fs_err::read(&gguf.root).unwrap(), noise(5, 5000));
    let data = get("hf:datasets/org/name@main/data/train.jsonl", &resolver).unwrap();
    assert_eq!(fs_err::read(&data.root).unwrap(), b"{}\n");
    let error = get("hf:org/name@main/q4/n.gguf", &resolver).unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean `q4/m.gguf`?");
    let error = get("hf:org/name", &resolver).unwrap_err();
    assert_eq!(error.to_string(), "`org/name` has no file `config.json`");
    assert_eq!(error.hint().unwrap(), "did you mean `q4/m.gguf`?");
}

#[test]
fn refusals_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = model();
    content.token = Some("right".to_owned());
    let hub = content.serve();
    let mut resolver = settings(dir.path(), &hub);
    for token in [None, Token::new("wrong")] {
        resolver.hub.token = token;
        let error = get("hf:org/name", &resolver).unwrap_err();
        assert!(matches!(error, SourceError::HubStatus { status: 401, .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("`{REPO}` at `main`")), "{error}");
        assert!(error.hint().unwrap().contains("`HF_TOKEN`"));
    }
    resolver.hub.token = Token::new("right");
    let error = get("hf:org/nobody@v2", &resolver).unwrap_err();
    assert!(matches!(error, SourceError::HubStatus { status: 404, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("revision"));
    drop(hub);
    let error = get("hf:org/name", &resolver).unwrap_err();
    assert!(matches!(error, SourceError::Hub { .. }), "{error:?}");
}

#[test]
fn hostile_answers_never_become_paths() {
    let evil = ["../../../../evil", "/tmp/evil", "", "a/../../../b"];
    for value in evil {
        let dir = tempfile::tempdir().unwrap();
        let mut content = model();
        content.commit = value.to_owned();
        let hub = content.serve();
        let error = get("hf:org/name", &settings(dir.path(), &hub)).unwrap_err();
        assert!(matches!(error, SourceError::HubAnswer { what: "commit", .. }), "{value}: {error:?}");
        let mut content = model();
        content.etag = Some(value.to_owned());
        let hub = content.serve();
        let error = get("hf:org/name", &settings(dir.path(), &hub)).unwrap_err();
        assert!(matches!(error, SourceError::HubAnswer { what: "ETag", .. }), "{value}: {error:?}");
        assert!(files_below(dir.path()).is_empty(), "{value}: nothing was written");
    }
}

#[test]
fn content_that_differs_from_its_announced_hash_stops() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = Content::new(&[("a.gguf", &noise(1, 1000))]);
    content.etag = Some("cd".repeat(32));
    let hub = content.serve();
    let error = get("hf:org/name@main/a.gguf", &settings(dir.path(), &hub)).unwrap_err();
    assert!(matches!(error, SourceError::CorruptDownload { .. }), "{error:?}");
    assert!(error.to_string().contains(&"cd".repeat(32)), "{error}");
}
