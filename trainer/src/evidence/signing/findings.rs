//! What is wrong with a single file.

use std::fmt;
use std::ops::Range;

use super::digest::Digest;
use super::error::shown;

/// One file that is not as it was signed, or that cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path in the folder, `/` separated.
    pub name: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Other bytes than signed.
    Changed {
        /// The signed digest.
        signed: Digest,
        /// The digest of the file as it is.
        found: Digest,
        /// The bytes that this is about; the whole file if none.
        bytes: Option<Range<u64>>,
    },
    /// Another size than signed; only a file signed in shards says its size.
    Size {
        /// The signed size in bytes.
        signed: u64,
        /// The size as it is.
        found: u64,
    },
    /// Signed, but not there.
    Missing,
    /// There, but not signed.
    Unlisted,
    /// A symbolic link where none is allowed.
    Link,
    /// A symbolic link to a folder: no signature covers what is behind it.
    LinkedFolder,
    /// A symbolic link to nothing.
    BrokenLink,
    /// A socket, a pipe, a device.
    Special,
    /// A name that is not UTF-8.
    NotUtf8,
    /// A file that cannot be read.
    Unreadable {
        /// What the system says.
        reason: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` {}", shown(&self.name), self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { signed, found, bytes: None } => {
                write!(out, "was changed: its sha256 is {found}, signed is {signed}")
            }
            Self::Changed { signed, found, bytes: Some(Range { start, end }) } => {
                write!(
                    out,
                    "was changed in bytes {start} to {end}: their sha256 is {found}, signed is {signed}"
                )
            }
            Self::Size { signed, found } => {
                write!(out, "was changed: it has {found} bytes, signed are {signed}")
            }
            Self::Missing => out.write_str("is missing"),
            Self::Unlisted => out.write_str("is not signed"),
            Self::Link => out.write_str("is a symbolic link"),
            Self::LinkedFolder => {
                out.write_str("is a symbolic link to a folder, which no signature can cover")
            }
            Self::BrokenLink => out.write_str("is a symbolic link to nothing"),
            Self::Special => out.write_str("is neither a file nor a folder"),
            Self::NotUtf8 => out.write_str("has a name that is not UTF-8"),
            Self::Unreadable { reason } => write!(out, "cannot be read: {reason}"),
        }
    }
}
