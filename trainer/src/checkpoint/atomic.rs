//! Files and folders that are whole or absent, whatever kills the process or the machine.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

/// Replaces the file at `path`: written beside it, fsynced, renamed, the folder fsynced.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// Replaces the file at `path` as [`write_file`] does, with what `fill` writes.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-");
    #[cfg(unix)]
    {
        // Temporary files are private by default; this one becomes an ordinary file.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    // Removed when anything fails on the way.
    let file = builder.tempfile_in(folder)?;
    let mut buffered = BufWriter::new(&file);
    fill(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Fsyncs a folder, so that renames in it survive a loss of power.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs_err::File::open(folder)?.sync_all()
}

/// Counts and hashes what passes through.
struct Tally<W> {
    inner: W,
    bytes: u64,
    hash: Sha256,
}

impl<W: Write> Write for Tally<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Creates a file, fsyncs it and returns its size and sha256.
pub(super) fn create(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<(u64, String)> {
    let file = fs_err::File::create(path)?;
    let mut tally = Tally { inner: BufWriter::new(file), bytes: 0, hash: Sha256::new() };
    fill(&mut tally)?;
    let Tally { inner, bytes, hash } = tally;
    inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok((bytes, hex(hash)))
}

/// Hashes a file in pieces.
pub(super) fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = fs_err::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(hash)),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
