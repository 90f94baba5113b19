//! Verifying a folder against its signature.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::bundle;
use super::digest::{Digest, Piece, digests};
use super::error::{FormatFault, MAX_SIGNATURE_BYTES, SignatureError};
use super::findings::{Fault, Finding};
use super::key::{Curve, PublicKey};
use super::statement::{self, Manifest, Part};
use super::walk::{self, Found, GIT_NAMES, Listing, Rules};

/// How a folder is verified.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Paths, relative to the folder, where files may be that are not signed. Signed files are verified everywhere.
    pub ignore: Vec<PathBuf>,
    /// Let files that are not signed be there.
    pub allow_unlisted: bool,
}

/// A folder that is as it was signed.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The name of the folder when it was signed.
    pub model: String,
    /// The key whose signature was verified; none if no key was given, and then only the files were compared with
    /// what the signature file says.
    pub signed_by: Option<Signer>,
    /// How many files were compared.
    pub files: usize,
    /// How many bytes they have.
    pub bytes: u64,
    /// Digest over all files.
    pub root: Digest,
    /// What is in the folder without being signed, and was left out.
    pub ignored: Vec<String>,
}

/// The key of a verified signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Its curve.
    pub curve: Curve,
    /// The hexadecimal SHA-256 of the public key as PEM.
    pub fingerprint: String,
    /// Whether the signature names its key; those of old signers do not.
    pub named: bool,
}

/// Verifies the signature, then that the folder holds the signed files, and only those.
///
/// Without a key nothing is known about who wrote the signature; see [`Verified::signed_by`].
///
/// # Errors
/// [`SignatureError::Mismatch`] lists every file that differs; any other error means that the signature says nothing.
pub fn verify(
    folder: &Path,
    signature: &Path,
    public_key: Option<&PublicKey>,
    options: &VerifyOptions,
) -> Result<Verified, SignatureError> {
    if !folder.is_dir() {
        return Err(SignatureError::NotAFolder { path: folder.to_owned() });
    }
    let malformed = |fault| SignatureError::Malformed { path: signature.to_owned(), fault };
    let envelope = bundle::read(&read_bounded(signature)?).map_err(malformed)?;
    let signed_by = public_key.map(|key| authenticate(&envelope, key, signature)).transpose()?;
    // Nothing of the payload is looked at before its signature.
    let manifest = statement::read(&envelope.payload).map_err(malformed)?;
    let own = walk::name_in(folder, signature);
    let mut rules = rules(own.clone(), &manifest).map_err(malformed)?;
    for path in &options.ignore {
        let name = path.to_str().and_then(clean).filter(|name| !name.is_empty());
        let nothing = || SignatureError::IgnoredNothing { path: path.clone(), folder: folder.to_owned() };
        rules.ignored.insert(name.ok_or_else(nothing)?);
    }
    let Listing { files, ignored, odd } = walk::list(folder, &rules)?;
    let findings = compare(&manifest, &files, odd, options.allow_unlisted);
    if !findings.is_empty() {
        return Err(SignatureError::Mismatch { folder: folder.to_owned(), findings });
    }
    let signed = files.iter().filter(|(name, _)| manifest.files.contains_key(*name));
    let bytes = signed.map(|(_, file)| file.bytes).sum();
    let unlisted = files.keys().filter(|name| !manifest.files.contains_key(*name)).cloned();
    let mut ignored: Vec<String> = ignored.into_iter().chain(unlisted).collect();
    ignored.retain(|name| Some(name) != own.as_ref());
    ignored.sort();
    Ok(Verified {
        model: manifest.model,
        signed_by,
        files: manifest.files.len(),
        bytes,
        root: manifest.root,
        ignored,
    })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, SignatureError> {
    let metadata = fs_err::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => SignatureError::NoSignature { path: path.to_owned() },
        _ => SignatureError::Read { path: path.to_owned(), source },
    })?;
    // To open a pipe would wait for whoever writes to it.
    if !metadata.is_file() {
        return Err(SignatureError::read(path)(std::io::Error::other("it is not a file")));
    }
    let file = fs_err::File::open(path).map_err(SignatureError::read(path))?;
    let mut bytes = Vec::new();
    file.take(MAX_SIGNATURE_BYTES + 1).read_to_end(&mut bytes).map_err(SignatureError::read(path))?;
    if bytes.len() as u64 > MAX_SIGNATURE_BYTES {
        return Err(SignatureError::TooLarge { path: path.to_owned(), bytes: metadata.len() });
    }
    Ok(bytes)
}

/// Checks that a key made a signature.
fn authenticate(envelope: &bundle::Envelope, key: &PublicKey, path: &Path) -> Result<Signer, SignatureError> {
    let fingerprint = key.fingerprint();
    if let Some(named) = envelope.hint.as_ref().filter(|named| **named != fingerprint) {
        let named = super::error::shown(named);
        return Err(SignatureError::OtherKey { path: path.to_owned(), named, given: fingerprint });
    }
    let message = bundle::pre_authentication_encoding(&envelope.payload);
    match key.verifies(&message, &envelope.signature) {
        Some(true) => Ok(Signer { curve: key.curve(), fingerprint, named: envelope.hint.is_some() }),
        Some(false) => Err(SignatureError::Forged { path: path.to_owned() }),
        None => {
            Err(SignatureError::Malformed { path: path.to_owned(), fault: FormatFault::Der { field: "sig" } })
        }
    }
}

/// Returns what is looked at: signed files always, others unless the signer leaves them out.
fn rules(own: Option<String>, manifest: &Manifest) -> Result<Rules, FormatFault> {
    let listed = manifest.files.keys().cloned().collect();
    let mut rules = Rules { listed, links: manifest.links, ..Rules::default() };
    for path in &manifest.ignored {
        match clean(path) {
            Some(name) if name.is_empty() => return Err(FormatFault::IgnoresAll),
            Some(name) => drop(rules.ignored.insert(name)),
            // Outside of the folder there is nothing to leave out; old signers wrote such paths.
            None => {}
        }
    }
    // Whoever signed one file of git's signed them all.
    let git = GIT_NAMES.into_iter().filter(|name| !rules.lists_at_or_below(name));
    let git: Vec<String> = git.map(str::to_owned).collect();
    rules.ignored.extend(git);
    rules.ignored.extend(own);
    Ok(rules)
}

/// Writes a path without `.` and doubled `/`; none if it does not stay below the folder.
fn clean(path: &str) -> Option<String> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Some(parts.join("/"))
}

/// Compares what is there with what was signed; the answer is in the order of the names.
fn compare(
    manifest: &Manifest,
    files: &BTreeMap<String, Found>,
    odd: Vec<Finding>,
    allow_unlisted: bool,
) -> Vec<Finding> {
    let mut findings = odd;
    let odd: BTreeSet<String> = findings.iter().map(|finding| finding.name.clone()).collect();
    if allow_unlisted {
        findings.retain(|finding| manifest.files.contains_key(&finding.name));
    }
    let mut push = |name: &str, fault| findings.push(Finding { name: name.to_owned(), fault });
    let mut work: Vec<(&str, &Part, Piece)> = Vec::new();
    for (name, parts) in &manifest.files {
        let Some(file) = files.get(name) else {
            if !odd.contains(name) {
                push(name, Fault::Missing);
            }
            continue;
        };
        let signed_bytes = parts.last().and_then(|part| part.range.as_ref()).map(|range| range.end);
        if let Some(signed) = signed_bytes.filter(|signed| *signed != file.bytes) {
            push(name, Fault::Size { signed, found: file.bytes });
            continue;
        }
        work.extend(parts.iter().map(|part| {
            let bytes = part.range.as_ref().map_or(file.bytes, |range| range.end - range.start);
            (name.as_str(), part, Piece { path: &file.path, range: part.range.clone(), bytes })
        }));
    }
    for (name, file) in files {
        // Shards cannot list an empty file.
        let unlistable = manifest.sharded && file.bytes == 0;
        if !manifest.files.contains_key(name) && !allow_unlisted && !unlistable {
            push(name, Fault::Unlisted);
        }
    }
    let pieces: Vec<Piece> = work.iter().map(|(_, _, piece)| piece.clone()).collect();
    for ((name, part, _), digest) in work.iter().zip(digests(&pieces)) {
        match digest {
            Ok(found) if found == part.digest => {}
            Ok(found) => push(name, Fault::Changed { signed: part.digest, found, bytes: part.range.clone() }),
            Err(error) => push(name, Fault::Unreadable { reason: error.to_string() }),
        }
    }
    // Stable, so that the parts of a file stay in their order.
    findings.sort_by(|one, other| one.name.cmp(&other.name));
    findings
}
