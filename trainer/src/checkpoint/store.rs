//! The checkpoints of a run: written whole, found again, the oldest removed.

use super::manifest::{self, Entry, Manifest, is_plain_name};
use super::{CheckpointError, State, atomic};
use crate::recipe::differing_keys;
use seedcorn_data::source::hash_text;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const STATE: &str = "state.json";
const RECIPE: &str = "recipe.toml";
/// A folder that is being written; a killed save leaves it behind.
const UNFINISHED: &str = ".tmp-";
/// A checkpoint that a new one of the same step is about to replace.
const REPLACED: &str = ".old-";

/// Writes the content of one file.
pub type Fill<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a>;

/// Makes the content of a file from bytes.
pub fn bytes<'a>(content: impl Into<Vec<u8>>) -> Fill<'a> {
    let content = content.into();
    Box::new(move |out| out.write_all(&content))
}

/// The folder `checkpoints/` of a run.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    keep: usize,
}

/// A checkpoint whose files are as its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Optimizer steps done.
    pub step: u64,
    /// Its folder.
    pub folder: PathBuf,
    /// Its files.
    pub manifest: Manifest,
}

/// A checkpoint that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its folder.
    pub folder: PathBuf,
    /// What is wrong with it.
    pub fault: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "skipped the checkpoint `{}`: {}", self.folder.display(), self.fault)
    }
}

/// Where a run continues.
#[derive(Debug)]
pub struct Resumed {
    /// The checkpoint.
    pub saved: Saved,
    /// Its state.
    pub state: State,
}

impl Store {
    /// Opens the checkpoints of the run in `run_folder`, of which the newest `keep` stay (at least one).
    /// Removes what killed saves left behind.
    pub fn open(run_folder: &Path, keep: u64) -> Result<Store, CheckpointError> {
        let folder = run_folder.join("checkpoints");
        let store = Store { folder, keep: usize::try_from(keep).unwrap_or(usize::MAX).max(1) };
        let fail = |source| CheckpointError::Read { path: store.folder.clone(), source };
        if store.folder.exists() {
            store.tidy().map_err(fail)?;
        }
        Ok(store)
    }

    /// Returns the newest whole checkpoint and, newest first, the broken ones above it.
    pub fn latest(&self) -> Result<(Option<Saved>, Vec<Broken>), CheckpointError> {
        let mut broken = Vec::new();
        for (step, folder) in self.steps()?.into_iter().rev() {
            match Manifest::check(&folder, step) {
                Ok(manifest) => return Ok((Some(Saved { step, folder, manifest }), broken)),
                Err(fault) => broken.push(Broken { folder, fault }),
            }
        }
        Ok((None, broken))
    }

    /// Finds where the run of a recipe continues; `recipe` is its canonical TOML, `lock_digest` the hash of
    /// its inputs. `warn` hears of every checkpoint that was passed over. `None` when nothing whole is there.
    ///
    /// # Errors
    /// [`CheckpointError::OtherRecipe`] with the keys that differ, [`CheckpointError::OtherInputs`], [`CheckpointError::State`],
    /// [`CheckpointError::NoFile`], [`CheckpointError::Read`].
    pub fn resume(
        &self,
        recipe: &str,
        lock_digest: &str,
        mut warn: impl FnMut(&Broken),
    ) -> Result<Option<Resumed>, CheckpointError> {
        let (saved, broken) = self.latest()?;
        broken.iter().for_each(&mut warn);
        let Some(saved) = saved else { return Ok(None) };
        let state = State::from_json(&saved.read(STATE)?, &saved.folder.join(STATE))?;
        if state.step != saved.step {
            let message = format!("it is of step {}, its folder of step {}", state.step, saved.step);
            return Err(CheckpointError::State { path: saved.folder.join(STATE), message });
        }
        if state.recipe_digest != hash_text(recipe) {
            let before = String::from_utf8_lossy(&saved.read(RECIPE)?).into_owned();
            let differing = describe_difference(&before, recipe);
            return Err(CheckpointError::OtherRecipe { path: saved.folder, differing });
        }
        if state.lock_digest != lock_digest {
            let (expected, found) = (lock_digest.to_owned(), state.lock_digest);
            return Err(CheckpointError::OtherInputs { path: saved.folder, expected, found });
        }
        Ok(Some(Resumed { saved, state }))
    }

    /// Saves a state, the canonical TOML of its recipe, and further files under plain names. The older
    /// checkpoints are removed once the new one is in place.
    ///
    /// # Errors
    /// [`CheckpointError::Save`] with the previous checkpoint, which is untouched;
    /// [`CheckpointError::FileName`].
    pub fn save(
        &self,
        state: &State,
        recipe: &str,
        files: Vec<(&str, Fill<'_>)>,
    ) -> Result<Saved, CheckpointError> {
        let mut all = vec![(STATE, bytes(state.to_json())), (RECIPE, bytes(recipe))];
        for (name, _) in &files {
            if !is_plain_name(name) || [STATE, RECIPE].contains(name) {
                return Err(CheckpointError::FileName { name: (*name).to_owned() });
            }
        }
        all.extend(files);
        let folder = self.folder.join(folder_name(state.step));
        let written = self.write(state.step, all);
        written.map_err(|source| {
            // The half-written folder is of no use, and what it takes may be what is missing.
            let _ = fs_err::remove_dir_all(self.unfinished(state.step));
            let previous = self.latest().ok().and_then(|(saved, _)| saved).map(|saved| saved.folder);
            CheckpointError::Save { path: folder, previous, source }
        })
    }

    fn write(&self, step: u64, files: Vec<(&str, Fill<'_>)>) -> io::Result<Saved> {
        if !self.folder.exists() {
            fs_err::create_dir_all(&self.folder)?;
            // The entry of `checkpoints/` itself must survive too.
            atomic::sync_folder(self.folder.parent().unwrap_or(Path::new(".")))?;
        }
        let unfinished = self.unfinished(step);
        if unfinished.exists() {
            fs_err::remove_dir_all(&unfinished)?;
        }
        fs_err::create_dir(&unfinished)?;
        let mut manifest = Manifest::new(step);
        for (name, fill) in files {
            let (bytes, sha256) = atomic::create(&unfinished.join(name), fill)?;
            manifest.files.insert(name.to_owned(), Entry { bytes, sha256 });
        }
        let list = manifest.to_json();
        atomic::create(&unfinished.join(manifest::NAME), |out| out.write_all(&list))?;
        atomic::sync_folder(&unfinished)?;
        let folder = self.put_in_place(&unfinished, step)?;
        self.remove_older(step)?;
        Ok(Saved { step, folder, manifest })
    }

    fn put_in_place(&self, unfinished: &Path, step: u64) -> io::Result<PathBuf> {
        let name = folder_name(step);
        let folder = self.folder.join(&name);
        let replaced = self.folder.join(format!("{REPLACED}{name}"));
        // A folder of this step is a broken one that was passed over on resume. It is moved aside rather than
        // removed, so that a kill between the two renames loses nothing: `tidy` moves it back.
        if folder.exists() {
            fs_err::rename(&folder, &replaced)?;
        }
        fs_err::rename(unfinished, &folder)?;
        atomic::sync_folder(&self.folder)?;
        if replaced.exists() {
            fs_err::remove_dir_all(&replaced)?;
        }
        Ok(folder)
    }

    fn remove_older(&self, newest: u64) -> io::Result<()> {
        let steps = self.steps().map_err(io::Error::other)?;
        // Folders above the newest are broken ones that were passed over; they do not count.
        let ours: Vec<_> = steps.into_iter().filter(|(step, _)| *step <= newest).collect();
        for (_, folder) in ours.iter().rev().skip(self.keep) {
            // Renamed first, so that a kill while removing leaves no half of a checkpoint under its name.
            let doomed = self.folder.join(format!("{UNFINISHED}{}", file_name(folder)));
            fs_err::rename(folder, &doomed)?;
            fs_err::remove_dir_all(&doomed)?;
        }
        Ok(())
    }

    /// Returns the checkpoint folders by rising step.
    fn steps(&self) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
        let fail = |source| CheckpointError::Read { path: self.folder.clone(), source };
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        for entry in fs_err::read_dir(&self.folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if let Some(step) = file_name(&path).strip_prefix("step-").and_then(|text| text.parse().ok()) {
                steps.push((step, path));
            }
        }
        steps.sort();
        Ok(steps)
    }

    fn tidy(&self) -> io::Result<()> {
        for entry in fs_err::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = file_name(&path);
            if let Some(name) = name.strip_prefix(REPLACED)
                && !self.folder.join(name).exists()
            {
                fs_err::rename(&path, self.folder.join(name))?;
            } else if name.starts_with(UNFINISHED) || name.starts_with(REPLACED) {
                fs_err::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    fn unfinished(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{UNFINISHED}{}", folder_name(step)))
    }
}

impl Saved {
    /// Returns the path of a file of this checkpoint.
    pub fn path(&self, name: &str) -> Result<PathBuf, CheckpointError> {
        if self.manifest.files.contains_key(name) {
            Ok(self.folder.join(name))
        } else {
            Err(CheckpointError::NoFile { path: self.folder.clone(), name: name.to_owned() })
        }
    }

    /// Reads a file of this checkpoint.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let path = self.path(name)?;
        fs_err::read(&path).map_err(|source| CheckpointError::Read { path, source })
    }
}

fn folder_name(step: u64) -> String {
    format!("step-{step:06}")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn describe_difference(before: &str, now: &str) -> Vec<String> {
    match differing_keys(before, now) {
        Ok(keys) if !keys.is_empty() => {
            keys.into_iter().map(|(key, before, now)| format!("`{key}` was {before} and is {now}")).collect()
        }
        _ => vec![format!("its `{RECIPE}` cannot be compared")],
    }
}
