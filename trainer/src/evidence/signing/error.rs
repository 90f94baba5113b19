//! What can be wrong with a key, a signature or a signed folder.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::findings::Finding;
use super::key::{Curve, KeyFault};
use crate::error::{Exit, Explain};

/// Largest signature file that is read or written: about 300,000 files.
pub const MAX_SIGNATURE_BYTES: u64 = 64 << 20;

/// Most findings that one message lists.
const LISTED: usize = 20;

/// A folder that could not be signed, or that its signature does not vouch for.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// What should be signed or verified is no folder.
    #[error("`{}` is not a folder", path.display())]
    NotAFolder {
        /// What was given.
        path: PathBuf,
    },
    /// A file or folder could not be read.
    #[error("could not read `{}`", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The signature could not be written.
    #[error("could not write the signature `{}`", path.display())]
    Write {
        /// The signature.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key file that holds no usable key.
    #[error("`{}` {fault}", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What it is instead.
        fault: KeyFault,
    },
    /// The key refused to sign.
    #[error("signing with the {curve} key failed")]
    Sign {
        /// Curve of the key.
        curve: Curve,
        /// Why.
        source: p256::ecdsa::Error,
    },
    /// There is no signature.
    #[error("there is no signature `{}`", path.display())]
    NoSignature {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The signature would replace a file that is no signature.
    #[error("`{}` exists and is no signature", path.display())]
    InTheWay {
        /// Where the signature should go.
        path: PathBuf,
    },
    /// A path to leave out that is not in the folder.
    #[error("`{}` to ignore is not in `{}`", path.display(), folder.display())]
    IgnoredNothing {
        /// The path as given.
        path: PathBuf,
        /// The signed folder.
        folder: PathBuf,
    },
    /// Nothing is left to sign.
    #[error("`{}` holds no file to sign", folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// A signature or a list of files beyond the limit.
    #[error("the signature `{}` has {bytes} bytes, at most {MAX_SIGNATURE_BYTES} are allowed", path.display())]
    TooLarge {
        /// The signature.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A file that is no signature of the format.
    #[error("`{}` is not a valid model signature: {fault}", path.display())]
    Malformed {
        /// The signature.
        path: PathBuf,
        /// The first thing that is wrong.
        fault: FormatFault,
    },
    /// The signature names another key.
    #[error("`{}` was signed with another key: it names {named}, the given key is {given}", path.display())]
    OtherKey {
        /// The signature.
        path: PathBuf,
        /// Fingerprint that the signature names.
        named: String,
        /// Fingerprint of the given key.
        given: String,
    },
    /// The signature is not the given key's over this content.
    #[error("the signature in `{}` is wrong: its content was changed, or another key made it", path.display())]
    Forged {
        /// The signature.
        path: PathBuf,
    },
    /// Files that cannot be signed.
    #[error("`{}` cannot be signed:{}", folder.display(), Lines(findings))]
    Unsignable {
        /// The folder.
        folder: PathBuf,
        /// What stands in the way.
        findings: Vec<Finding>,
    },
    /// Files that are not as they were signed.
    #[error("`{}` is not what was signed:{}", folder.display(), Lines(findings))]
    Mismatch {
        /// The folder.
        folder: PathBuf,
        /// Every difference, in the order of the names.
        findings: Vec<Finding>,
    },
}

/// What makes a file no model signature of version 1.0.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it, the fields are what they name")]
pub enum FormatFault {
    #[error("its {part} is not as the format says: {source}")]
    Json { part: &'static str, source: serde_json::Error },
    #[error("`{field}` is `{}`, expected `{expected}`", shown(found))]
    Constant { field: &'static str, found: String, expected: &'static str },
    #[error("it is made with {method}, only signatures by a key are supported")]
    Method { method: &'static str },
    #[error("it has {count} {what}, expected 1")]
    One { what: &'static str, count: usize },
    #[error("`{field}` is not base64")]
    Base64 { field: &'static str },
    #[error("`{field}` is not an ECDSA signature in DER")]
    Der { field: &'static str },
    #[error("`{field}` is `{}`, not a sha256", shown(found))]
    Digest { field: &'static str, found: String },
    #[error("the serialization `{field}` is `{}`, supported is {expected}", shown(found))]
    Unsupported { field: &'static str, found: String, expected: &'static str },
    #[error("`shard_size` {} is missing or not a positive integer", shown(found))]
    ShardSize { found: String },
    #[error("it lists no file")]
    NoFile,
    #[error("`{}` is not the name of a file in the folder", shown(name))]
    Name { name: String },
    #[error("it lists `{}` twice", shown(name))]
    Twice { name: String },
    #[error("the parts of `{}` are not those of a file cut every {shard_bytes} bytes", shown(name))]
    Shards { name: String, shard_bytes: u64 },
    #[error("it ignores the whole folder")]
    IgnoresAll,
    #[error("its files have the root digest {found}, it says {said}")]
    Root { found: String, said: String },
}

/// Shows a text that someone else wrote: without control characters, and not all of a long one.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut out: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push_str("...");
    }
    out
}

/// Findings under one another, the first ones of many.
struct Lines<'a>(&'a [Finding]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.0.iter().take(LISTED) {
            write!(out, "\n  {finding}")?;
        }
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(out, "\n  and {more} more"),
        }
    }
}

impl SignatureError {
    /// Attaches a path to a fault of reading.
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> SignatureError {
        move |source| SignatureError::Read { path: path.to_owned(), source }
    }

    /// Returns the findings of a folder that differs from what was signed.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Mismatch { findings, .. } | Self::Unsignable { findings, .. } => findings,
            _ => &[],
        }
    }
}

impl Explain for SignatureError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Key { fault, path } => fault.hint(path),
            Self::NotAFolder { .. } => "name the folder whose files are signed".to_owned(),
            Self::NoSignature { .. } => {
                "`seedcorn sign FOLDER --key KEY` writes `model.sig` into a folder".to_owned()
            }
            Self::InTheWay { .. } => "name another file with `--signature`".to_owned(),
            Self::IgnoredNothing { .. } => "write it relative to the folder".to_owned(),
            Self::OtherKey { .. } => "use the public key of whoever signed it".to_owned(),
            Self::Unsignable { .. } => {
                "remove these, leave them out with `--ignore`, or allow links with `--allow-symlinks`"
                    .to_owned()
            }
            Self::Mismatch { .. } | Self::Forged { .. } => {
                "do not use these files; fetch them again from whoever signed them".to_owned()
            }
            Self::Write { .. } => "nothing was left behind; check the space and the rights there".to_owned(),
            _ => return None,
        })
    }

    fn exit(&self) -> Exit {
        match self {
            Self::NotAFolder { .. }
            | Self::Key { .. }
            | Self::InTheWay { .. }
            | Self::IgnoredNothing { .. }
            | Self::Empty { .. } => Exit::Usage,
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}
