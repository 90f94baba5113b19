//! What can go wrong with saved states and the folder of a run.

use std::path::PathBuf;

/// A state that could not be saved or continued, or a folder that is not ours to use.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum CheckpointError {
    // Saving.
    #[error("could not save the checkpoint `{}`", path.display())]
    Save { path: PathBuf, previous: Option<PathBuf>, source: std::io::Error },
    #[error("`{name}` is no name for a file of a checkpoint")]
    FileName { name: String },

    // Continuing.
    #[error("could not read the checkpoints in `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the checkpoint `{}` has no `{name}`", path.display())]
    NoFile { path: PathBuf, name: String },
    #[error("`{}` is not a state of a run: {message}", path.display())]
    State { path: PathBuf, message: String },
    #[error("the checkpoint `{}` belongs to another recipe: {}", path.display(), differing.join("; "))]
    OtherRecipe { path: PathBuf, differing: Vec<String> },

    #[error("the checkpoint `{}` belongs to other inputs: lock {found}, now {expected}", path.display())]
    OtherInputs { path: PathBuf, expected: String, found: String },

    // The folder of the run.
    #[error("could not use the output folder `{}`", path.display())]
    Output { path: PathBuf, source: std::io::Error },
    #[error("the output folder `{}` holds another run (`{found}`)", path.display())]
    Occupied { path: PathBuf, found: &'static str },
    #[error("another process is writing to the output folder `{}`", path.display())]
    InUse { path: PathBuf },
}

impl CheckpointError {
    /// Returns what to do next, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            CheckpointError::Save { previous: Some(previous), .. } => Some(format!(
                "the previous checkpoint `{}` is intact; free some space, then continue with `--resume`",
                previous.display()
            )),
            CheckpointError::Save { previous: None, .. } => {
                Some("no earlier checkpoint exists; free some space, then start again".to_owned())
            }
            CheckpointError::OtherRecipe { .. } => {
                Some("resume with the recipe the run was started with, or choose another `output`".to_owned())
            }
            CheckpointError::OtherInputs { .. } => Some(
                "model, data, program or device changed since; restore them, or choose another `output`"
                    .to_owned(),
            ),
            CheckpointError::Occupied { .. } => Some(
                "continue that run with `--resume`, or choose another folder with `--set output=...`"
                    .to_owned(),
            ),
            CheckpointError::InUse { .. } => {
                Some("wait for it to end, or choose another folder with `--set output=...`".to_owned())
            }
            _ => None,
        }
    }

    /// Whether another command or recipe is needed, rather than another try.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            CheckpointError::OtherRecipe { .. }
                | CheckpointError::OtherInputs { .. }
                | CheckpointError::Occupied { .. }
                | CheckpointError::InUse { .. }
        )
    }
}
