//! What can go wrong between a source string and its files.

use std::path::PathBuf;

use hf_hub::api::sync::ApiError;
use thiserror::Error;
use zip::result::ZipError;

use super::near::quoted;

/// Source strings that parse, as messages show them.
pub(super) const KNOWN: &str =
    "`pypi:NAME==VERSION/path/in/wheel`, `hf:org/name@revision`, a folder or a file";

/// Faults of sources, with what to do about them in [`hint`](SourceError::hint).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    // The text of a recipe.
    /// The part before `:` is no scheme we know.
    #[error("unknown source scheme `{scheme}:` in `{text}`; known: {KNOWN}")]
    UnknownScheme {
        /// What stands before the colon.
        scheme: String,
        /// The whole source string.
        text: String,
    },
    /// The scheme is known, the rest does not follow its form.
    #[error("source `{text}` {fault}: expected `{expected}`")]
    Malformed {
        /// The whole source string.
        text: String,
        /// What is wrong with it.
        fault: &'static str,
        /// The form of this scheme.
        expected: &'static str,
    },
    /// A path that leads nowhere.
    #[error("no file or folder at `{}`", path.display())]
    MissingPath {
        /// The path after joining it to the recipe's folder.
        path: PathBuf,
        /// Names in the same folder that are near.
        similar: Vec<String>,
    },
    /// A socket, a device or a pipe.
    #[error("`{}` is neither a file nor a folder", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A name in a folder that is not UTF-8.
    #[error("file name `{}` is not valid UTF-8", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A folder with more files, or deeper, than a model or a data set has.
    #[error("folder `{}` holds more than {limit} {what}", path.display())]
    FolderTooLarge {
        /// The folder.
        path: PathBuf,
        /// The bound.
        limit: usize,
        /// What was counted.
        what: &'static str,
    },
    /// A shard index that is not one.
    #[error("`{}` is not a safetensors index: {fault}", path.display())]
    BadIndex {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },

    // Hashes.
    /// A pin that is not a sha256.
    #[error("pin of `{file}` is not a sha256: expected 64 hex digits, got `{pin}`")]
    MalformedPin {
        /// The pinned file.
        file: String,
        /// The pin as written.
        pin: String,
    },
    /// A pin for a file that the source does not have.
    #[error("pinned file `{file}` is not in `{source_text}`, which has {}", quoted(names))]
    UnmatchedPin {
        /// The pinned file.
        file: String,
        /// The source.
        source_text: String,
        /// The first names the source has.
        names: Vec<String>,
    },
    /// A file differs from its pin.
    #[error("sha256 of `{file}` from `{source_text}` is {found}, but the recipe pins {expected}")]
    PinMismatch {
        /// The file.
        file: String,
        /// The source.
        source_text: String,
        /// The pinned hash.
        expected: String,
        /// The hash of the content.
        found: String,
    },
    /// A download differs from the hash its server announced.
    #[error("sha256 of `{}` is {found}, but the server announced {expected}", path.display())]
    CorruptDownload {
        /// The downloaded file.
        path: PathBuf,
        /// The announced hash.
        expected: String,
        /// The hash of the content.
        found: String,
    },

    // Fetching.
    /// Not in the cache, and no network allowed.
    #[error("`{source_text}` is not in the cache at `{}`, and this run is offline", cache_dir.display())]
    Offline {
        /// The source.
        source_text: String,
        /// The cache that was searched.
        cache_dir: PathBuf,
    },
    /// Python does not start.
    #[error("could not start `{}` to download `{requirement}`", python.display())]
    PythonMissing {
        /// The interpreter tried.
        python: PathBuf,
        /// The package wanted.
        requirement: String,
        /// The system's answer.
        #[source]
        cause: std::io::Error,
    },
    /// pip ended with an error.
    #[error("`pip download {requirement}` failed ({status}):\n{output}")]
    PipFailed {
        /// The package wanted.
        requirement: String,
        /// How pip ended.
        status: String,
        /// Its last lines, indented.
        output: String,
    },
    /// The index has no metadata apart from the wheel, or cannot be asked for it.
    #[error(
        "the package index gives no metadata of `{requirement}` apart from the wheel ({status})\n{output}"
    )]
    NoMetadata {
        /// The package wanted.
        requirement: String,
        /// How the question ended.
        status: String,
        /// The last lines of what was said, indented.
        output: String,
    },
    /// pip ended well but left no wheel.
    #[error("`pip download {requirement}` left no wheel in `{}`", folder.display())]
    NoWheel {
        /// The package wanted.
        requirement: String,
        /// Where it should be.
        folder: PathBuf,
    },
    /// An archive that cannot be read.
    #[error("could not read `{member}` from wheel `{wheel}`")]
    BadWheel {
        /// File name of the wheel.
        wheel: String,
        /// The member wanted.
        member: String,
        /// What the archive reader says.
        #[source]
        cause: ZipError,
    },
    /// The wheel has no such file.
    #[error("wheel `{wheel}` has no file `{member}`")]
    NoMember {
        /// File name of the wheel.
        wheel: String,
        /// The member wanted.
        member: String,
        /// Members with a near name, at most five.
        similar: Vec<String>,
    },
    /// The archive's directory and its data disagree about a size.
    #[error("`{member}` in wheel `{wheel}` has {found} bytes, but the archive's directory says {declared}")]
    MemberSize {
        /// File name of the wheel.
        wheel: String,
        /// The member.
        member: String,
        /// Size in the central directory.
        declared: u64,
        /// Bytes the data gives, or could give at most.
        found: u64,
    },
    /// The hub answers with an error status.
    #[error("`{endpoint}` answers {status} for {what}")]
    HubStatus {
        /// The hub.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// The repository or file asked for.
        what: String,
    },
    /// The hub cannot be reached or speaks something else.
    #[error("could not get {what} from `{endpoint}`")]
    Hub {
        /// The hub.
        endpoint: String,
        /// The repository or file asked for.
        what: String,
        /// What the client says.
        #[source]
        cause: Box<ApiError>,
    },
    /// The hub sent a value that must not become a path.
    #[error("`{endpoint}` sent an unusable {what}: `{value}`")]
    HubAnswer {
        /// The hub.
        endpoint: String,
        /// Which value.
        what: &'static str,
        /// The value, shortened.
        value: String,
    },
    /// The repository lacks a file.
    #[error("`{repo}` has no file `{wanted}`")]
    NotInRepo {
        /// The repository.
        repo: String,
        /// The file wanted.
        wanted: String,
        /// Files with a near name, or the first of all.
        similar: Vec<String>,
    },

    /// Reading or writing a local file failed; the text names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl SourceError {
    /// Says what to do next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownScheme { text, .. } => format!("for a local file of this name write `./{text}`"),
            Self::Malformed { expected, .. } => format!("write it as `{expected}`"),
            Self::MissingPath { similar, .. } if similar.is_empty() => {
                "check the path; a relative one in a recipe starts at the recipe's folder".to_owned()
            }
            Self::MissingPath { similar, .. }
            | Self::NoMember { similar, .. }
            | Self::NotInRepo { similar, .. }
                if !similar.is_empty() =>
            {
                format!("did you mean {}?", quoted(similar))
            }
            Self::NoMember { wheel, .. } => format!("list its files with `python3 -m zipfile -l {wheel}`"),
            Self::NotInRepo { .. } => {
                "name a file of the repository after the revision: `hf:org/name@main/path`".to_owned()
            }
            Self::FolderTooLarge { .. } => "point the source at the folder of the model or data set".to_owned(),
            Self::BadIndex { .. } => "fetch the model again".to_owned(),
            Self::MalformedPin { file, .. } => format!("`sha256sum {file}` prints the value to pin"),
            Self::UnmatchedPin { names, .. } => format!("pin one of {}, or remove the pin", quoted(names)),
            Self::PinMismatch { found, .. } => format!(
                "the content is not what the recipe was written for; if it is what you want, pin {found}"
            ),
            Self::CorruptDownload { path, .. } => format!("delete `{}` and run again", path.display()),
            Self::Offline { .. } => "run once with a network, or point the source at a local file".to_owned(),
            Self::PythonMissing { .. } => {
                "install Python 3 with pip, or download the wheel elsewhere, unzip it and use the path".to_owned()
            }
            Self::PipFailed { requirement, .. } => {
                let name = requirement.split("==").next().unwrap_or(requirement);
                format!(
                    "`python3 -m pip index versions {name}` lists the versions; mirrors and proxies are set \
                     in pip's own configuration (`python3 -m pip config list`)"
                )
            }
            Self::NoMetadata { .. } => {
                "state the licence in the recipe, or let the wheel be fetched: it has the metadata".to_owned()
            }
            Self::NoWheel { .. } => "the package may be published as source only; use a local path".to_owned(),
            Self::BadWheel { .. } | Self::MemberSize { .. } => {
                "the download may be damaged: `python3 -m pip cache purge`, then run again".to_owned()
            }
            Self::HubStatus { status: 401 | 403, .. } => {
                "set `HF_TOKEN` to a token that may read it; gated models must be accepted on their page first"
                    .to_owned()
            }
            Self::HubStatus { status: 404, .. } => {
                "check the names and the revision; a private repository needs `HF_TOKEN`".to_owned()
            }
            Self::HubStatus { .. } | Self::Hub { .. } | Self::HubAnswer { .. } => {
                "check `HF_ENDPOINT` and the network, then run again: complete files are kept".to_owned()
            }
            Self::MissingPath { .. } | Self::NotAFile { .. } | Self::NotUtf8 { .. } | Self::Io(_) => {
                return None;
            }
        };
        Some(text)
    }
}
