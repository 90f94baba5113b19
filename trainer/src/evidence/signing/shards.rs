//! Files that were signed in shards: `path:start:end`, each at most `shard_size` bytes.
//!
//! Only read, never written: a folder of a few large files hashes as fast whole, and whole files are what every
//! verifier must know. The method has no shard for an empty file.

use std::ops::Range;

use super::error::FormatFault;
use super::statement::Part;

/// Reads the size of a shard; JSON of a protocol buffer writes it as a float.
pub(super) fn size(value: Option<&serde_json::Value>) -> Result<u64, FormatFault> {
    let found = value.map_or("nothing".to_owned(), ToString::to_string);
    let whole = |float: f64| {
        (float.fract() == 0.0 && (1.0..=2_f64.powi(53)).contains(&float)).then_some(float as u64)
    };
    let size = value.and_then(|value| value.as_u64().or_else(|| value.as_f64().and_then(whole)));
    size.filter(|size| *size > 0).ok_or(FormatFault::ShardSize { found })
}

/// Splits the name of a shard; a path may have colons too.
pub(super) fn name(text: &str) -> Result<(String, Range<u64>), FormatFault> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let mut parts = text.rsplitn(3, ':');
    let (end, start) = (parts.next().and_then(number), parts.next().and_then(number));
    match (parts.next(), start, end) {
        (Some(path), Some(start), Some(end)) => Ok((path.to_owned(), start..end)),
        _ => Err(FormatFault::Name { name: text.to_owned() }),
    }
}

/// Brings the shards of a file into order and checks that they cover it, each once.
pub(super) fn order(name: &str, parts: &mut [Part], shard_bytes: u64) -> Result<(), FormatFault> {
    parts.sort_by_key(|part| part.range.as_ref().map(|range| range.start));
    let mut at = 0;
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        let fits = part.range.as_ref().is_some_and(|range| {
            let bytes = range.end.saturating_sub(range.start);
            range.start == at && bytes > 0 && (bytes == shard_bytes || (last && bytes < shard_bytes))
        });
        match &part.range {
            Some(range) if fits => at = range.end,
            _ => return Err(FormatFault::Shards { name: name.to_owned(), shard_bytes }),
        }
    }
    Ok(())
}
