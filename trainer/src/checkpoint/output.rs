//! The folder of a run: ours alone, and never another run's.

use super::CheckpointError;
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};

/// Whatever shows that a run has been here, in the order it is looked for.
const TRACES: [&str; 4] = ["run.lock", "metrics.jsonl", "checkpoints", "adapter"];

/// The output folder, held by this process as long as the value lives.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    _in_use: std::fs::File,
}

impl Output {
    /// Takes the folder for a run, and creates it when it is absent.
    ///
    /// # Errors
    /// [`CheckpointError::Occupied`] when another run is there and `resume` is false,
    /// [`CheckpointError::InUse`] when another process holds it, [`CheckpointError::Output`] when it cannot be
    /// created or written.
    pub fn take(folder: &Path, resume: bool) -> Result<Output, CheckpointError> {
        let fail = |source: io::Error| CheckpointError::Output { path: folder.to_owned(), source };
        fs_err::create_dir_all(folder).map_err(fail)?;
        // The folder itself is locked, so that no file stays behind. The system releases the lock when the
        // process dies, however it dies.
        let (in_use, _) = fs_err::File::open(folder).map_err(fail)?.into_parts();
        match in_use.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CheckpointError::InUse { path: folder.to_owned() });
            }
            // Some network file systems have no locks; there the traces have to do.
            Err(TryLockError::Error(source)) if source.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        if !resume && let Some(found) = Output::trace(folder) {
            return Err(CheckpointError::Occupied { path: folder.to_owned(), found });
        }
        Ok(Output { folder: folder.to_owned(), _in_use: in_use })
    }

    /// Returns a file that shows that a run has been in a folder.
    pub fn trace(folder: &Path) -> Option<&'static str> {
        TRACES.into_iter().find(|name| folder.join(name).exists())
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_the_folder_of_another_run() {
        for trace in TRACES {
            let folder = tempfile::tempdir().expect("temp folder");
            fs_err::write(folder.path().join("notes.txt"), "mine").expect("write");
            drop(Output::take(folder.path(), false).expect("no run here"));
            fs_err::write(folder.path().join(trace), "").expect("write");
            let error = Output::take(folder.path(), false).expect_err("a run is here");
            let path = folder.path().display();
            assert_eq!(
                error.to_string(),
                format!("the output folder `{path}` holds another run (`{trace}`)")
            );
            assert!(error.is_usage() && error.hint().expect("a hint").contains("--resume"));
            assert_eq!(Output::take(folder.path(), true).expect("resumed").folder(), folder.path());
        }
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("deep/run");
        let held = Output::take(&path, false).expect("free");
        let error = Output::take(&path, true).expect_err("held");
        assert!(matches!(error, CheckpointError::InUse { .. }), "{error}");
        drop(held);
        Output::take(&path, false).expect("free again");
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("run");
        fs_err::write(&path, "").expect("write");
        assert!(matches!(Output::take(&path, false), Err(CheckpointError::Output { .. })));
    }
}
