//! SHA-256 of files and of streams on their way to disk.
//!
//! `sha2` picks SHA-NI or the ARMv8 instructions at run time.

use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes per read: large enough that system calls do not show, small enough for the L2 cache.
const CHUNK_BYTES: usize = 256 * 1024;

/// Hashes a file and counts its bytes in one pass: sha256 in lower-case hexadecimal digits, and the size.
///
/// # Errors
/// Whatever the system says of the file.
pub fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    let mut sink = HashingWriter::new(io::sink());
    copy(&mut fs_err::File::open(path)?, &mut sink)?;
    let (sha256, bytes, _) = sink.finish();
    Ok((sha256, bytes))
}

/// Which end of a copy failed: a damaged archive is not a full disk.
#[derive(Debug)]
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

impl From<CopyError> for io::Error {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Read(error) | CopyError::Write(error) => error,
        }
    }
}

/// Copies with large reads, retrying interrupted ones.
pub(super) fn copy(reader: &mut impl Read, writer: &mut impl Write) -> Result<u64, CopyError> {
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    let mut total = 0_u64;
    loop {
        let count = match reader.read(&mut chunk) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        writer.write_all(&chunk[..count]).map_err(CopyError::Write)?;
        total += count as u64;
    }
}

/// Hashes a text.
pub(super) fn hash_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Tells whether a text is a sha256 in lower-case hex.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Passes bytes on and hashes them.
pub(super) struct HashingWriter<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0 }
    }

    /// Ends the stream: hash in hex, number of bytes, what was written to.
    pub(super) fn finish(self) -> (String, u64, W) {
        (hex(&self.hasher.finalize()), self.bytes, self.inner)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hex(digest: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    digest
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digest_and_count_across_chunks() {
        // FIPS 180-2, appendix B.3: one million times `a`.
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![b'a'; 1_000_000]).unwrap();
        let (sha256, bytes) = hash_file(file.path()).unwrap();
        assert_eq!(sha256, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
        assert_eq!(bytes, 1_000_000);
        assert_eq!(hash_text(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
