//! The files of a run against the lock.

use std::path::{Path, PathBuf};

use super::report::Report;
use super::subject::Subject;
use crate::evidence::lock::{File, Lock};
use crate::evidence::outputs::{self, EXPORTS, LOCK};
use crate::log::from_here;
use crate::recipe::shown_bytes;

/// Compares every file that the lock lists for this place, and the copies of the lock itself.
pub(super) fn check(subject: &Subject, lock: &Lock, report: &mut Report) {
    const NAME: &str = "files";
    let Some(results) = &lock.results else {
        return report.failed(NAME, "the run did not finish: its lock has no results");
    };
    let listed: Vec<(&str, &File)> =
        results.files.iter().filter_map(|file| Some((subject.local(&file.name)?, file))).collect();
    if subject.alone && !listed.iter().any(|(name, _)| subject.folder.join(name).exists()) {
        return report.skipped(NAME, "none of the run's files lie beside the lock");
    }
    if listed.is_empty() {
        return report.failed(NAME, "the lock lists no file of this folder");
    }
    let mut faults = compare(&subject.folder, &listed);
    faults.extend(copies(subject, lock));
    let bytes: u64 = listed.iter().map(|(_, file)| file.bytes).sum();
    report
        .faults(NAME, faults, || format!("{} files, {}, as the lock says", listed.len(), shown_bytes(bytes)));
    let known = |name: &String| listed.iter().any(|(listed, _)| listed == name);
    if let Ok(names) = outputs::names(&subject.folder) {
        for name in names.iter().filter(|name| !known(name)) {
            report.skipped(NAME, format!("`{name}` is not of this run"));
        }
    }
}

/// Hashes files and says of each that differs how.
fn compare(folder: &Path, listed: &[(&str, &File)]) -> Vec<String> {
    let (present, absent): (Vec<_>, Vec<_>) = listed.iter().partition(|(name, _)| is_file(folder, name));
    let shown = |name: &str| folder.join(name).display().to_string();
    let mut faults: Vec<String> =
        absent.iter().map(|(name, _)| format!("`{}` is missing", shown(name))).collect();
    let names = present.iter().map(|(name, _)| (*name).to_owned()).collect();
    match outputs::hashed(folder, names) {
        Ok(found) => {
            let pairs = present.iter().zip(&found);
            faults.extend(
                pairs.filter_map(|((name, claimed), found)| difference(&shown(name), claimed, found)),
            );
        }
        Err(error) => faults.push(error.to_string()),
    }
    faults
}

/// A plain file at a path that stays in the folder; a lock may come from anywhere.
fn is_file(folder: &Path, name: &str) -> bool {
    let inside = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    inside && fs_err::symlink_metadata(folder.join(name)).is_ok_and(|found| found.is_file())
}

/// Says how a file is not what was claimed.
pub(super) fn difference(name: &str, claimed: &File, found: &File) -> Option<String> {
    if claimed.bytes != found.bytes {
        return Some(format!("`{name}` has {} bytes, the lock says {}", found.bytes, claimed.bytes));
    }
    let differs = claimed.sha256 != found.sha256;
    differs.then(|| format!("`{name}` has sha256 {}, the lock says {}", found.sha256, claimed.sha256))
}

/// The copies of the lock in exports hold what the lock holds.
fn copies(subject: &Subject, lock: &Lock) -> Vec<String> {
    if subject.export.is_some() {
        return Vec::new();
    }
    let places = EXPORTS.into_iter().filter(|export| subject.folder.join(export).is_dir());
    let fault = |export: &str| {
        let path = subject.folder.join(export).join(LOCK);
        match Lock::read(&path) {
            Ok(copy) if copy == *lock => None,
            Ok(_) => Some(format!("`{}` is the lock of another run", path.display())),
            Err(error) => Some(error.to_string()),
        }
    };
    places.filter_map(fault).collect()
}

/// Compares the recipe's file, where it is still to be found; returns the folder where its paths start.
pub(super) fn check_recipe(
    subject: &Subject,
    lock: &Lock,
    from: Option<&Path>,
    report: &mut Report,
) -> PathBuf {
    const NAME: &str = "recipe";
    let beside = || subject.lock.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let Some(claimed) = &lock.recipe_file else {
        return from.map_or_else(beside, Path::to_owned);
    };
    let last = Path::new(&claimed.name).file_name().unwrap_or_default();
    // Written from the folder of the run; an export lies one level below it.
    let run = if subject.export.is_some() { beside().join("..") } else { beside() };
    let places = match from {
        Some(from) => vec![from.join(last)],
        None => vec![beside().join(last), run.join(&claimed.name)],
    };
    let Some(place) = places.iter().find(|place| place.is_file()) else {
        report.skipped(NAME, format!("`{}` is not here; the lock holds all of it", claimed.name));
        return from.map_or_else(beside, Path::to_owned);
    };
    let folder = place.parent().unwrap_or(Path::new("")).to_owned();
    let shown = from_here(place);
    let found = seedcorn_data::source::hash_file(place);
    let found = found.map(|(sha256, bytes)| File { name: claimed.name.clone(), bytes, sha256 });
    match found.map(|found| difference(&shown.display().to_string(), claimed, &found)) {
        Ok(None) => report.ok(NAME, format!("`{}`, as the lock says", shown.display())),
        Ok(Some(fault)) => report.failed(NAME, fault),
        Err(error) => report.failed(NAME, format!("`{}` cannot be read: {error}", shown.display())),
    }
    folder
}
