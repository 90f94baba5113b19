//! PEM files, as far as keys need them.

use std::io::Read;
use std::path::Path;

use p256::elliptic_curve::zeroize::Zeroizing;
use p256::pkcs8::der::pem::decode_vec;

use super::error::SignatureError;
use super::key::KeyFault;

/// Larger files are no keys.
const MAX_KEY_BYTES: u64 = 64 << 10;

/// A block of PEM.
pub(super) struct Block<'a> {
    /// What it says it is.
    pub label: &'a str,
    /// From its first line to its last.
    pub text: &'a str,
}

impl<'a> Block<'a> {
    /// Finds the first block that is not one of those to pass over.
    pub(super) fn find(mut text: &'a str, passed_over: &[&str]) -> Result<Block<'a>, KeyFault> {
        loop {
            let start = text.find("-----BEGIN ").ok_or(KeyFault::NoPem)?;
            let (label, _) = text[start + 11..].split_once("-----").ok_or(KeyFault::NoPem)?;
            let end_line = format!("-----END {label}-----");
            let end = text[start..].find(&end_line).ok_or(KeyFault::NoPem)? + start + end_line.len();
            if !passed_over.contains(&label) {
                return Ok(Block { label, text: &text[start..end] });
            }
            text = &text[end..];
        }
    }

    /// Decodes the content.
    pub(super) fn der(&self) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
        decode_vec(self.text.as_bytes()).map(|(_, der)| Zeroizing::new(der)).map_err(|_| KeyFault::Curve)
    }
}

/// Reads a small text file; its memory is wiped when it is dropped.
pub(super) fn read_text(path: &Path) -> Result<Zeroizing<String>, SignatureError> {
    let key = |fault| SignatureError::Key { path: path.to_owned(), fault };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_BYTES as usize + 1));
    fs_err::File::open(path)
        .and_then(|file| file.take(MAX_KEY_BYTES + 1).read_to_end(&mut bytes))
        .map_err(SignatureError::read(path))?;
    if bytes.len() as u64 > MAX_KEY_BYTES {
        return Err(key(KeyFault::TooLarge));
    }
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|_| key(KeyFault::NoPem))
}
