//! SHA-256 of files, several at once.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

use rayon::iter::{ParallelBridge, ParallelIterator};
use seedcorn_data::source::hash;
use sha2::Digest as _;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub(super) fn from_hex(text: &str) -> Option<Digest> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            *byte = u8::try_from(high? << 4 | low?).ok()?;
        }
        Some(Digest(bytes))
    }

    /// Hashes bytes in memory.
    pub(super) fn of(bytes: &[u8]) -> Digest {
        Digest(sha2::Sha256::digest(bytes).into())
    }

    /// Returns the digest that stands for a list of digests: the SHA-256 of their bytes in this order.
    pub(super) fn root<'a>(digests: impl Iterator<Item = &'a Digest>) -> Digest {
        let mut hash = sha2::Sha256::new();
        for digest in digests {
            hash.update(digest.0);
        }
        Digest(hash.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

/// A file or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Piece<'a> {
    /// The file.
    pub path: &'a Path,
    /// Bytes to hash; all if none.
    pub range: Option<Range<u64>>,
    /// How many bytes that is about, for the order of work.
    pub bytes: u64,
}

/// Hashes pieces on all threads of the pool, the largest first; the answers are in the order of the pieces.
pub(super) fn digests(pieces: &[Piece]) -> Vec<io::Result<Digest>> {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(pieces[*index].bytes));
    // A bridge hands out one piece after another to whichever thread is free.
    let mut done: Vec<(usize, io::Result<Digest>)> =
        order.into_iter().par_bridge().map(|index| (index, digest(&pieces[index]))).collect();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, digest)| digest).collect()
}

fn digest(piece: &Piece) -> io::Result<Digest> {
    let (hex, _) = match &piece.range {
        None => hash::hash_file(piece.path)?,
        Some(range) => hash::hash_range(piece.path, range.clone())?,
    };
    Digest::from_hex(&hex).ok_or_else(|| io::Error::other("the hash is not a sha256"))
}
