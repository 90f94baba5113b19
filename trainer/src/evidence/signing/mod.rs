//! Signatures over folders, in the OpenSSF Model Signing format v1.0.
//!
//! A signature is one file beside the files that it covers, `model.sig`: a Sigstore bundle with the public key's
//! fingerprint, and a DSSE envelope around an in-toto statement that lists each file with its SHA-256. Keys are ECDSA
//! on P-256, P-384 and P-521. Certificates and Sigstore identities are not supported.
//!
//! [`sign()`] writes it, [`verify()`] compares a folder with it and names each file that differs. No path of a signature
//! is ever opened: the folder is listed first, and what the signature lists is looked up there.

mod bundle;
mod digest;
mod error;
mod findings;
mod key;
mod pem;
mod shards;
mod sign;
mod statement;
#[cfg(test)]
mod tests;
mod verify;
mod walk;

use std::path::{Path, PathBuf};

pub use digest::Digest;
pub use error::{FormatFault, MAX_SIGNATURE_BYTES, SignatureError};
pub use findings::{Fault, Finding};
pub use key::{Curve, KeyFault, PrivateKey, PublicKey};
pub use sign::{SignOptions, Signed, sign};
pub use verify::{Signer, Verified, VerifyOptions, verify};
pub use walk::GIT_NAMES;

/// Name of the signature in a folder.
pub const SIGNATURE_FILE: &str = "model.sig";

/// Returns where the signature of a folder is unless said otherwise.
pub fn signature_of(folder: &Path) -> PathBuf {
    folder.join(SIGNATURE_FILE)
}
