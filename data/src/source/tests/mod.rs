//! Sources against wheels, folders and a hub made here; nothing leaves this machine.

mod cached;
mod card;
mod hub;
mod hub_server;
mod local;
mod parse;
mod pypi;
mod wheel;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{HubSettings, Resolver};

/// Settings that stay in one folder and reach nothing by themselves.
fn resolver(dir: &Path) -> Resolver {
    Resolver {
        cache_dir: dir.join("cache"),
        offline: false,
        progress: false,
        verify: false,
        pins: BTreeMap::new(),
        python: dir.join("python3"),
        hub: HubSettings {
            endpoint: "http://127.0.0.1:1".to_owned(),
            token: None,
            offline: false,
            cache_dir: dir.join("hub"),
        },
    }
}

/// Writes a wheel with these members.
fn make_wheel(path: &Path, members: &[(&str, &[u8])]) {
    let mut zip = ZipWriter::new(fs_err::File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, content) in members {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

/// Content that does not compress away, the same for the same seed.
fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// All files below a folder.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(dir) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
