//! Where ranks that a launcher has started find each other: rank 0 listens, every other rank says which one it is, and
//! once all are there each gets a token from rank 0. Nothing else travels here.
//!
//! ```text
//! hello  (80 bytes)  "SEEDCORN", rank u32, ranks u32, version (32, padded with zeros), run (32: a hash)
//! reply              0 u8, the token (128)    or    1 u8, length u16, why this rank is refused (text)
//! ```
//!
//! Numbers are little-endian. Whoever reaches the port can pass for a rank, as with any launcher's port: it belongs into a
//! network of the ranks' own. What is no hello is dropped, and keeps nobody waiting.

mod error;
mod guest;
mod host;
mod place;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use error::MeetingError;
pub use guest::join;
pub use host::{host, listen};
pub use place::Place;

/// Bytes of what rank 0 hands out.
pub const TOKEN: usize = 128;
const HELLO: usize = 80;
const MAGIC: &[u8; 8] = b"SEEDCORN";
/// Bytes of a reason at most.
const MOST_REASON: usize = 1024;

/// One rank's side of a meeting.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// Which rank this is.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
    /// Where they meet.
    pub place: Place,
    /// Which version of this program.
    pub version: String,
    /// How long to wait for the others.
    pub patience: Duration,
}

/// What a rank says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hello {
    rank: u32,
    ranks: u32,
    version: String,
    run: [u8; 32],
}

impl Meeting {
    fn hello(&self) -> Hello {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Hello {
            rank: number(self.rank),
            ranks: number(self.ranks),
            version: self.version.clone(),
            run: self.place.run,
        }
    }
}

impl Hello {
    fn to_bytes(&self) -> [u8; HELLO] {
        let mut bytes = [0; HELLO];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.rank.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.ranks.to_le_bytes());
        let version = self.version.as_bytes();
        let length = version.len().min(32);
        bytes[16..16 + length].copy_from_slice(&version[..length]);
        bytes[48..].copy_from_slice(&self.run);
        bytes
    }

    /// Reads what a rank says; nothing if no rank speaks.
    fn from_bytes(bytes: &[u8; HELLO]) -> Option<Hello> {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let version = bytes[16..48].split(|byte| *byte == 0).next().unwrap_or_default();
        let version = String::from_utf8(version.to_vec()).ok()?;
        if &bytes[..8] != MAGIC || version.contains(|letter: char| !letter.is_ascii_graphic()) {
            return None;
        }
        let mut run = [0; 32];
        run.copy_from_slice(&bytes[48..]);
        Some(Hello { rank: number(8), ranks: number(12), version, run })
    }
}
