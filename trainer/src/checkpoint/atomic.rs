//! Files and folders that are whole or absent, whatever kills the process or the machine.

use seedcorn_data::source::hash::{self, HashingWriter};
use std::io::{self, BufWriter, Write};
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

/// Creates a file, fsyncs it and returns its size and sha256.
pub(super) fn create(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<(u64, String)> {
    let file = fs_err::File::create(path)?;
    let mut out = HashingWriter::new(BufWriter::new(file));
    fill(&mut out)?;
    let (sha256, bytes, inner) = out.finish();
    inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok((bytes, sha256))
}

/// Hashes a file in pieces.
pub(super) fn hash_file(path: &Path) -> io::Result<String> {
    hash::hash_file(path).map(|(sha256, _)| sha256)
}
