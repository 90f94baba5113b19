//! SHA-256 of files and of streams on their way to disk; the one place where contents are hashed.
//!
//! `sha2` picks SHA-NI or the ARMv8 instructions at run time.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes per read: large enough that system calls do not show, small enough for the L2 cache.
const CHUNK_BYTES: usize = 256 * 1024;

/// Hashes a file and counts its bytes in one pass: sha256 in lower-case hexadecimal digits, and the size.
///
/// # Errors
/// Whatever the system says of the file.
pub fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    hash_reader(&mut fs_err::File::open(path)?)
}

/// Hashes a stretch of a file and counts the bytes that there are in it.
pub fn hash_range(path: &Path, range: Range<u64>) -> io::Result<(String, u64)> {
    let mut file = fs_err::File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    hash_reader(&mut file.take(range.end.saturating_sub(range.start)))
}

fn hash_reader(reader: &mut impl Read) -> io::Result<(String, u64)> {
    let mut sink = HashingWriter::new(io::sink());
    copy(reader, &mut sink)?;
    let (sha256, bytes, _) = sink.finish();
    Ok((sha256, bytes))
}

/// Which end of a copy failed: a damaged archive is not a full disk.
#[derive(Debug)]
pub enum CopyError {
    /// The source.
    Read(io::Error),
    /// The target.
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
pub fn copy(reader: &mut impl Read, writer: &mut impl Write) -> Result<u64, CopyError> {
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
pub fn hash_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Tells whether a text is a sha256 in lower-case hex.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Passes bytes on and hashes them.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Starts an empty stream.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0 }
    }

    /// Ends the stream: hash in hex, number of bytes, what was written to.
    pub fn finish(self) -> (String, u64, W) {
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
        assert_eq!(hash_range(file.path(), 0..1_000_000).unwrap(), (sha256, bytes));
        assert_eq!(hash_range(file.path(), 999_998..1_000_001).unwrap(), (hash_text("aa"), 2));
        assert_eq!(hash_range(file.path(), 1_000_000..1_000_009).unwrap(), (hash_text(""), 0));
        assert_eq!(hash_text(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
