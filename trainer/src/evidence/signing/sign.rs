//! Signing a folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::bundle::{self, Envelope};
use super::digest::{Digest, Piece, digests};
use super::error::{MAX_SIGNATURE_BYTES, SignatureError};
use super::findings::{Fault, Finding};
use super::key::PrivateKey;
use super::statement::{self, Manifest, Part};
use super::walk::{self, GIT_NAMES, Listing, Rules};
use crate::checkpoint::atomic;

/// How a folder is signed.
#[derive(Clone, Debug, Default)]
pub struct SignOptions {
    /// Where the signature goes; `model.sig` in the folder if none.
    pub signature: Option<PathBuf>,
    /// Paths to leave out, relative to the folder or absolute; a folder stands for all in it.
    pub ignore: Vec<PathBuf>,
    /// Sign what symbolic links to files point at instead of refusing them.
    pub allow_symlinks: bool,
}

/// A folder that was signed.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Where the signature is.
    pub signature: PathBuf,
    /// How many files are signed.
    pub files: usize,
    /// How many bytes they have.
    pub bytes: u64,
    /// Digest over all files.
    pub root: Digest,
    /// What is in the folder and was left out.
    pub ignored: Vec<String>,
    /// Signed names that are links to files outside the folder.
    pub outside: Vec<String>,
}

/// Signs every file of a folder, with the exceptions of [`SignOptions`], the signature itself and git's files.
///
/// The signature is replaced whole or not at all. The same files and the same key give the same bytes.
pub fn sign(folder: &Path, key: &PrivateKey, options: &SignOptions) -> Result<Signed, SignatureError> {
    if !folder.is_dir() {
        return Err(SignatureError::NotAFolder { path: folder.to_owned() });
    }
    let path = options.signature.clone().unwrap_or_else(|| folder.join(super::SIGNATURE_FILE));
    check_place(&path)?;
    let own = walk::name_in(folder, &path);
    let rules = Rules {
        ignored: ignored(folder, own.clone(), options)?,
        links: options.allow_symlinks,
        ..Rules::default()
    };
    let Listing { files, ignored, odd } = walk::list(folder, &rules)?;
    let unsignable = |findings| SignatureError::Unsignable { folder: folder.to_owned(), findings };
    if !odd.is_empty() {
        return Err(unsignable(odd));
    }
    if files.is_empty() {
        return Err(SignatureError::Empty { folder: folder.to_owned() });
    }
    let pieces: Vec<Piece> =
        files.values().map(|file| Piece { path: &file.path, range: None, bytes: file.bytes }).collect();
    let mut unreadable = Vec::new();
    let mut manifest = Manifest {
        model: model_name(folder)?,
        root: Digest::of(b""),
        links: options.allow_symlinks,
        ignored: rules.ignored.into_iter().collect(),
        sharded: false,
        files: std::collections::BTreeMap::new(),
    };
    for (name, digest) in files.keys().zip(digests(&pieces)) {
        match digest {
            Ok(digest) => drop(manifest.files.insert(name.clone(), vec![Part { range: None, digest }])),
            Err(error) => {
                let fault = Fault::Unreadable { reason: error.to_string() };
                unreadable.push(Finding { name: name.clone(), fault });
            }
        }
    }
    if !unreadable.is_empty() {
        return Err(unsignable(unreadable));
    }
    manifest.root = Digest::root(manifest.files.values().flatten().map(|part| &part.digest));
    write(&path, &manifest, key)?;
    Ok(Signed {
        signature: path,
        files: files.len(),
        bytes: files.values().map(|file| file.bytes).sum(),
        root: manifest.root,
        ignored: ignored.into_iter().filter(|name| Some(name) != own.as_ref()).collect(),
        outside: files.iter().filter(|(_, file)| file.outside).map(|(name, _)| name.clone()).collect(),
    })
}

fn write(path: &Path, manifest: &Manifest, key: &PrivateKey) -> Result<(), SignatureError> {
    let failed = |source| SignatureError::Write { path: path.to_owned(), source };
    let payload = statement::write(manifest).map_err(|error| failed(error.into()))?;
    let signature = key.sign(&bundle::pre_authentication_encoding(&payload))?;
    let envelope = Envelope { payload, signature, hint: Some(key.public().fingerprint()) };
    let text = bundle::write(&envelope).map_err(|error| failed(error.into()))?;
    if text.len() as u64 > MAX_SIGNATURE_BYTES {
        return Err(SignatureError::TooLarge { path: path.to_owned(), bytes: text.len() as u64 });
    }
    atomic::write_file(path, &text).map_err(failed)
}

/// A mistaken `--signature` must not cost a file of the model.
fn check_place(path: &Path) -> Result<(), SignatureError> {
    match fs_err::metadata(path) {
        Ok(metadata)
            if !metadata.is_file()
                || metadata.len() > MAX_SIGNATURE_BYTES
                || !fs_err::read(path).is_ok_and(|bytes| bundle::is_bundle(&bytes)) =>
        {
            Err(SignatureError::InTheWay { path: path.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Returns the names to leave out: git's, the signature's, the user's.
fn ignored(
    folder: &Path,
    own: Option<String>,
    options: &SignOptions,
) -> Result<BTreeSet<String>, SignatureError> {
    let mut ignored: BTreeSet<String> = GIT_NAMES.map(str::to_owned).into();
    ignored.extend(own);
    for path in &options.ignore {
        let inner = folder.join(path);
        // A path that leaves nothing out is a mistake of whoever wrote it.
        let name = inner.symlink_metadata().ok().and_then(|_| walk::name_in(folder, &inner));
        let nothing = || SignatureError::IgnoredNothing { path: path.clone(), folder: folder.to_owned() };
        ignored.insert(name.ok_or_else(nothing)?);
    }
    Ok(ignored)
}

/// Returns the last part of the path of a folder, also of `.`.
fn model_name(folder: &Path) -> Result<String, SignatureError> {
    let whole = fs_err::canonicalize(folder).map_err(SignatureError::read(folder))?;
    Ok(whole.file_name().unwrap_or_default().to_string_lossy().into_owned())
}
