//! What the cache trusts, and when it looks again.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::resolver;
use crate::source::cache::Cache;
use crate::source::{Resolved, Resolver, SourceError};

const KEY: &str = "pypi:x==1/y";

fn stored(dir: &Path) -> (Cache, Resolved) {
    let cache = Cache::new(&resolver(dir).cache_dir);
    let fill = |content: &'static [u8]| {
        cache.insert("y", |writer| writer.write_all(content).map_err(SourceError::Io)).unwrap()
    };
    let file = fill(b"content");
    let resolved = Resolved { root: file.path.clone(), files: vec![file], revision: None };
    cache.record(KEY, &resolved).unwrap();
    (cache, resolved)
}

/// Changes a blob behind the cache's back.
fn overwrite(path: &Path, content: &str, modified: SystemTime) {
    fs_err::remove_file(path).unwrap();
    fs_err::write(path, content).unwrap();
    let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
    file.file().set_modified(modified).unwrap();
}

#[test]
fn size_and_time_are_trusted_unless_told_to_verify() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, resolved) = stored(dir.path());
    assert_eq!(cache.lookup(KEY, true).unwrap().as_ref(), Some(&resolved));
    assert!(cache.lookup("pypi:x==2/y", false).unwrap().is_none());
    let time = fs_err::metadata(&resolved.root).unwrap().modified().unwrap();
    overwrite(&resolved.root, "CONTENT", time);
    assert!(cache.lookup(KEY, false).unwrap().is_some(), "nothing is hashed");
    assert!(cache.lookup(KEY, true).unwrap().is_none(), "verify sees the change");
}

#[test]
fn another_time_means_another_look() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, resolved) = stored(dir.path());
    let later = SystemTime::now() + Duration::from_secs(100);
    overwrite(&resolved.root, "content", later);
    assert!(cache.lookup(KEY, false).unwrap().is_some(), "same content at another time");
    // The new time was recorded, so a change that keeps it goes unseen: proof that no hash is made.
    overwrite(&resolved.root, "CONTENT", later);
    assert!(cache.lookup(KEY, false).unwrap().is_some());
    overwrite(&resolved.root, "CONTENT", later + Duration::from_secs(1));
    assert!(cache.lookup(KEY, false).unwrap().is_none());
    fs_err::remove_file(&resolved.root).unwrap();
    assert!(cache.lookup(KEY, false).unwrap().is_none());
}

#[test]
fn a_cache_can_be_moved() {
    let dir = tempfile::tempdir().unwrap();
    let (_, resolved) = stored(dir.path());
    fs_err::rename(dir.path().join("cache"), dir.path().join("moved")).unwrap();
    let found = Cache::new(&dir.path().join("moved")).lookup(KEY, false).unwrap().unwrap();
    assert_eq!(found.files[0].sha256, resolved.files[0].sha256);
    assert!(found.root.starts_with(dir.path().join("moved")) && found.root.is_file());
}

#[test]
fn a_damaged_index_is_no_entry() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, _) = stored(dir.path());
    let index = fs_err::read_dir(dir.path().join("cache/index")).unwrap().next().unwrap().unwrap().path();
    let whole = fs_err::read_to_string(&index).unwrap();
    for text in [&whole[..whole.len() / 2], "", "{}", &whole.replace("\"y\"", "\"../y\"")] {
        fs_err::write(&index, text).unwrap();
        assert!(cache.lookup(KEY, false).unwrap().is_none(), "{text}");
    }
    fs_err::write(&index, &whole).unwrap();
    assert!(cache.lookup(KEY, false).unwrap().is_some());
}

#[test]
fn the_environment_decides_where_things_are() {
    let from = |pairs: &[(&str, &str)]| {
        let pairs: Vec<(String, OsString)> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Resolver::from_lookup(move |name| {
            pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        })
    };
    let home = from(&[("HOME", "/h"), ("SEEDCORN_CACHE", "")]);
    assert_eq!(home.cache_dir, PathBuf::from("/h/.cache/seedcorn"));
    assert_eq!(home.hub.cache_dir, PathBuf::from("/h/.cache/huggingface/hub"));
    assert_eq!((home.hub.endpoint.as_str(), home.hub.offline), ("https://huggingface.co", false));
    let xdg = from(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HUB_OFFLINE", "1")]);
    assert_eq!(xdg.cache_dir, PathBuf::from("/x/seedcorn"));
    assert!(xdg.hub.offline && !xdg.offline, "wheels may still be fetched");
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("token"), " hf_file\n").unwrap();
    let hf_home = dir.path().to_str().unwrap();
    let own = from(&[("SEEDCORN_CACHE", "/c"), ("HF_HOME", hf_home), ("HF_ENDPOINT", "http://m/")]);
    assert_eq!(own.cache_dir, PathBuf::from("/c"));
    assert_eq!(own.hub.cache_dir, dir.path().join("hub"));
    assert_eq!(own.hub.endpoint, "http://m");
    assert_eq!(own.hub.token.as_ref().unwrap().secret(), "hf_file");
    let token = from(&[("HF_TOKEN", "hf_env"), ("HF_HOME", hf_home)]);
    assert_eq!(token.hub.token.as_ref().unwrap().secret(), "hf_env");
    assert!(!format!("{token:?}").contains("hf_env"), "a token is never printed");
}
