//! What is verified: a run, its lock alone, or one of its exports.

use std::path::{Path, PathBuf};

use crate::error::Explained;
use crate::evidence::outputs::{EXPORTS, LOCK, SIGNATURE};

/// Where the evidence lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The lock; a folder that is only signed has none.
    pub lock: Option<PathBuf>,
    /// The folder whose files are compared.
    pub folder: PathBuf,
    /// Which of the lock's files lie in `folder`: those of an export, like `adapter`, or all.
    pub export: Option<&'static str>,
    /// Whether the lock was named by itself: the files of the run may then be elsewhere.
    pub alone: bool,
}

impl Subject {
    /// Finds the lock of what a user points at.
    ///
    /// # Errors
    /// Nothing is there, or nothing that says what it should be.
    pub fn find(path: &Path) -> Result<Subject, Explained> {
        if path.is_file() {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let folder = parent.unwrap_or(Path::new(".")).to_owned();
            let export = export_of(&folder);
            return Ok(Subject { lock: Some(path.to_owned()), folder, export, alone: true });
        }
        if !path.is_dir() {
            return Err(Explained::usage(format!("`{}` does not exist", path.display()))
                .with_hint("name the folder of a run, its `run.lock`, or the folder of an adapter"));
        }
        let export = export_of(path);
        let beside = export.map(|_| path.join("..").join(LOCK));
        let lock = [Some(path.join(LOCK)), beside].into_iter().flatten().find(|lock| lock.is_file());
        if lock.is_none() && !path.join(SIGNATURE).is_file() {
            return Err(Explained::usage(format!(
                "`{}` has no `{LOCK}` and no `{SIGNATURE}`",
                path.display()
            ))
            .with_hint("name the folder of a run, its `run.lock`, or the folder of an adapter"));
        }
        Ok(Subject { lock, folder: path.to_owned(), export, alone: false })
    }

    /// Says under which name a file of the lock lies in the folder; nothing for files of other places.
    pub fn local<'a>(&self, name: &'a str) -> Option<&'a str> {
        match self.export {
            Some(export) => name.strip_prefix(export)?.strip_prefix('/'),
            None => Some(name),
        }
    }
}

/// Which export a folder is, told by what lies in it.
fn export_of(folder: &Path) -> Option<&'static str> {
    let markers = ["adapter_config.json", "config.json"];
    EXPORTS
        .into_iter()
        .zip(markers)
        .find(|(_, marker)| folder.join(marker).is_file())
        .map(|(export, _)| export)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_lock_of_a_run_an_export_and_a_signed_folder() {
        let root = tempfile::tempdir().expect("temp folder");
        let at = |name: &str| root.path().join(name);
        let write = |name: &str| {
            fs_err::create_dir_all(at(name).parent().expect("inside")).expect("made");
            fs_err::write(at(name), "x").expect("written");
        };
        write("run/adapter/adapter_config.json");
        assert!(Subject::find(&at("run")).is_err() && Subject::find(&at("none")).is_err());
        write("run/run.lock");
        let run = Subject::find(&at("run")).expect("a run");
        assert_eq!((run.lock.as_deref(), run.export), (Some(at("run/run.lock").as_path()), None));
        assert_eq!(run.local("adapter/x"), Some("adapter/x"));

        let adapter = Subject::find(&at("run/adapter")).expect("an adapter");
        assert_eq!(adapter.export, Some("adapter"));
        assert_eq!(adapter.local("adapter/x"), Some("x"));
        assert_eq!((adapter.local("merged/x"), adapter.local("adapterx")), (None, None));
        // The copy that travels with the adapter comes first.
        write("run/adapter/run.lock");
        let adapter = Subject::find(&at("run/adapter")).expect("an adapter");
        assert_eq!(adapter.lock, Some(at("run/adapter/run.lock")));

        let lock = Subject::find(&at("run/run.lock")).expect("a lock");
        assert!(lock.alone && lock.folder == at("run"));
        write("signed/model.sig");
        assert_eq!(Subject::find(&at("signed")).expect("signed").lock, None);
    }
}
