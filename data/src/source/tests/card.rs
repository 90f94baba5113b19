//! Cards: what is known of a source before it is fetched.

use std::path::Path;

use super::hub_server::{COMMIT, Content};
use super::{make_wheel, noise, resolver};
use crate::source::{Card, CardKind, Resolver, Source, SourceError, card, resolve};

const FRONT: &str = "---\nlicense: mit\n---\n# A\n";

fn parsed(text: &str) -> Source {
    Source::parse(text, Path::new("/")).unwrap()
}

fn ask(text: &str, resolver: &Resolver) -> Result<Option<Card>, SourceError> {
    card(&parsed(text), resolver)
}

#[test]
fn of_a_repository_without_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let content = Content::new(&[
        ("config.json", b"{}"),
        ("README.md", FRONT.as_bytes()),
        ("model.safetensors", &noise(1, 9000)),
    ]);
    let hub = content.serve();
    let mut resolver = resolver(dir.path());
    resolver.hub.endpoint.clone_from(&hub.endpoint);
    let expected = Card { kind: CardKind::Readme, text: FRONT.to_owned(), revision: Some(COMMIT.to_owned()) };
    assert_eq!(ask("hf:org/name", &resolver).unwrap().unwrap(), expected);
    let requests = hub.requests();
    assert!(
        requests.iter().all(|url| url.contains("/revision/") || url.contains("README.md")),
        "{requests:?}"
    );
    // Once the files are there, the card of their commit is found without a question.
    resolve(&parsed("hf:org/name"), &resolver).unwrap();
    let asked = hub.requests().len();
    assert_eq!(ask("hf:org/name", &resolver).unwrap().unwrap(), expected);
    assert_eq!(hub.requests().len(), asked);
    resolver.offline = true;
    assert_eq!(ask("hf:org/name", &resolver).unwrap().unwrap(), expected);
    let error = ask("hf:org/name@v2", &resolver).unwrap_err();
    assert!(matches!(error, SourceError::Offline { .. }), "{error:?}");
}

#[test]
fn of_a_repository_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Content::new(&[("a.jsonl", b"{}\n")]).serve();
    let mut resolver = resolver(dir.path());
    resolver.hub.endpoint.clone_from(&hub.endpoint);
    let text = "hf:datasets/org/name@main/a.jsonl";
    assert_eq!(ask(text, &resolver).unwrap(), None);
    resolve(&parsed(text), &resolver).unwrap();
    let asked = hub.requests().len();
    assert_eq!(ask(text, &resolver).unwrap(), None);
    assert_eq!(hub.requests().len(), asked, "that there is none is known");
}

#[test]
fn of_local_files() {
    let dir = tempfile::tempdir().unwrap();
    let resolver = resolver(dir.path());
    let file = dir.path().join("a.jsonl");
    fs_err::write(&file, "{}\n").unwrap();
    let (file, folder) = (file.display().to_string(), dir.path().display().to_string());
    assert_eq!(ask(&file, &resolver).unwrap(), None);
    fs_err::write(dir.path().join("README.md"), [FRONT.as_bytes(), &noise(3, 600_000)].concat()).unwrap();
    for text in [&file, &folder] {
        let found = ask(text, &resolver).unwrap().unwrap();
        assert!(found.text.starts_with(FRONT) && found.text.len() < 1 << 20);
    }
}

#[cfg(unix)]
#[test]
fn of_a_wheel_before_and_after_it_is_fetched() {
    let text = "pypi:some-data==1.2/some_data/a.jsonl";
    let metadata = b"Metadata-Version: 2.4\nName: some-data\nLicense-Expression: MIT\n";
    let wheel = |dir: &Path, members: &[(&str, &[u8])]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/tests/fake_python3");
        fs_err::os::unix::fs::symlink(script, dir.join("python3")).unwrap();
        make_wheel(&dir.join("some_data-1.2-py3-none-any.whl"), members);
    };
    let calls = |dir: &Path| fs_err::read_to_string(dir.join("calls")).unwrap();

    let dir = tempfile::tempdir().unwrap();
    wheel(dir.path(), &[("some_data/a.jsonl", b"{}\n"), ("some_data-1.2.dist-info/METADATA", metadata)]);
    let mut settings = resolver(dir.path());
    let error = ask(text, &settings).unwrap_err();
    assert!(matches!(error, SourceError::NoMetadata { .. }), "{error:?}");
    resolve(&parsed(text), &settings).unwrap();
    settings.offline = true;
    let found = ask(text, &settings).unwrap().unwrap();
    assert_eq!((found.kind, found.text.as_bytes()), (CardKind::WheelMetadata, metadata.as_slice()));
    assert_eq!(found.revision.as_deref(), Some("1.2"));

    let dir = tempfile::tempdir().unwrap();
    wheel(dir.path(), &[("some_data/a.jsonl", b"{}\n")]);
    fs_err::write(dir.path().join("metadata"), metadata).unwrap();
    let settings = resolver(dir.path());
    for _ in 0..2 {
        assert_eq!(ask(text, &settings).unwrap().unwrap(), found);
    }
    assert_eq!(calls(dir.path()), "metadata some-data 1.2\n", "asked once, nothing downloaded");
}
