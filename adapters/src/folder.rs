//! A folder that appears whole or not at all: written beside its place, flushed to disk, renamed.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use fs_err::File;

use crate::error::AdapterError;

/// The card of an export.
pub const CARD_FILE: &str = "README.md";
/// The bill of materials of an export.
pub const BOM_FILE: &str = "bom.json";
/// Stands in a card or bill of materials that we wrote: a later export may replace it, and no other file of that
/// name.
pub const MARK: &str = "written by seedcorn: a later export replaces this file";
/// Cards and bills of materials have some kilobytes.
const MAX_MARKED_BYTES: u64 = 16 << 20;

/// Tells whether a file is a card or a bill of materials that we wrote.
pub fn is_marked(folder: &Path, name: &str) -> bool {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        File::open(folder.join(name))?.take(MAX_MARKED_BYTES).read_to_string(&mut text)?;
        Ok(text)
    };
    [CARD_FILE, BOM_FILE].contains(&name) && read().is_ok_and(|text| text.contains(MARK))
}

/// A folder under construction; dropped without [`NewFolder::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct NewFolder {
    temp: tempfile::TempDir,
    target: PathBuf,
}

impl NewFolder {
    /// Starts a folder that will become `target`. A folder already there is replaced at the end, provided
    /// `ours` says yes to each name in it.
    ///
    /// # Errors
    /// `target` is a file, or a folder with other things in it.
    pub fn create(target: &Path, ours: impl Fn(&str) -> bool) -> Result<Self, AdapterError> {
        if target.exists() {
            for entry in fs_err::read_dir(target)? {
                let found = entry?.file_name().to_string_lossy().into_owned();
                if !ours(&found) {
                    return Err(AdapterError::FolderInUse { path: target.to_owned(), found });
                }
            }
        }
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        fs_err::create_dir_all(&parent)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".seedcorn-new-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The default of temporary folders, 0700, would stay after the rename; the umask still applies.
            builder.permissions(std::fs::Permissions::from_mode(0o777));
        }
        Ok(Self { temp: builder.tempdir_in(&parent)?, target: target.to_owned() })
    }

    /// Opens a new file in the folder.
    ///
    /// # Errors
    /// A name that is not plain (a path, `..`, empty), or that exists already.
    pub fn file(&self, name: &str) -> Result<File, AdapterError> {
        Ok(fs_err::OpenOptions::new().write(true).create_new(true).open(self.path(name)?)?)
    }

    /// Writes a whole file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), AdapterError> {
        let mut file = self.file(name)?;
        file.write_all(bytes)?;
        Ok(file.sync_all()?)
    }

    /// Gives a file another name.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), AdapterError> {
        Ok(fs_err::rename(self.path(from)?, self.path(to)?)?)
    }

    fn path(&self, name: &str) -> Result<PathBuf, AdapterError> {
        let plain = !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "." && name != "..";
        if !plain {
            return Err(AdapterError::BadFileName { name: name.to_owned() });
        }
        Ok(self.temp.path().join(name))
    }

    /// Flushes every file and moves the folder to its place. An older folder is moved aside first and
    /// removed last, so that at every moment at least one of them is whole.
    pub fn commit(self) -> Result<(), AdapterError> {
        for entry in fs_err::read_dir(self.temp.path())? {
            File::open(entry?.path())?.sync_all()?;
        }
        sync_folder(self.temp.path())?;
        let parent = self.temp.path().parent().unwrap_or(Path::new(".")).to_owned();
        let aside = if self.target.exists() {
            let aside = tempfile::Builder::new().prefix(".seedcorn-old-").tempdir_in(&parent)?;
            fs_err::rename(&self.target, aside.path().join("old"))?;
            Some(aside)
        } else {
            None
        };
        if let Err(fault) = fs_err::rename(self.temp.path(), &self.target) {
            if let Some(aside) = aside {
                // Put the old folder back; if that fails too, keep it where it is rather than remove it.
                let kept = aside.keep();
                fs_err::rename(kept.join("old"), &self.target)?;
                fs_err::remove_dir(&kept)?;
            }
            return Err(fault.into());
        }
        // The folder has moved: the guard must not remove what is no longer its own.
        let _moved = self.temp.keep();
        Ok(sync_folder(&parent)?)
    }
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_whole_and_replaces_only_its_own() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        let ours = |name: &str| name == "a";
        let new = NewFolder::create(&target, ours).unwrap();
        new.write("a", b"1").unwrap();
        assert!(!target.exists());
        new.commit().unwrap();
        assert_eq!(fs_err::read(target.join("a")).unwrap(), b"1");

        let abandoned = NewFolder::create(&target, ours).unwrap();
        abandoned.write("a", b"half").unwrap();
        drop(abandoned);
        assert_eq!(fs_err::read(target.join("a")).unwrap(), b"1");

        let again = NewFolder::create(&target, ours).unwrap();
        again.write("a", b"2").unwrap();
        again.commit().unwrap();
        assert_eq!(fs_err::read(target.join("a")).unwrap(), b"2");
        assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 1, "nothing temporary is left");

        fs_err::write(target.join("thesis.txt"), b"x").unwrap();
        let fault = NewFolder::create(&target, ours).unwrap_err().to_string();
        assert!(fault.contains("holds `thesis.txt`"), "{fault}");
    }

    #[test]
    fn only_our_own_card_is_marked() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_marked(root.path(), CARD_FILE));
        fs_err::write(root.path().join(CARD_FILE), "# My model\n").unwrap();
        assert!(!is_marked(root.path(), CARD_FILE));
        for name in [CARD_FILE, BOM_FILE, "notes.md"] {
            fs_err::write(root.path().join(name), format!("# A\n<!-- {MARK} -->\n")).unwrap();
        }
        assert!(is_marked(root.path(), CARD_FILE) && is_marked(root.path(), BOM_FILE));
        assert!(!is_marked(root.path(), "notes.md"));
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let new = NewFolder::create(&root.path().join("out"), |_| true).unwrap();
        for name in ["../x", "/x", "..", "", "a/b"] {
            assert!(new.write(name, b"").is_err(), "{name}");
        }
    }
}
