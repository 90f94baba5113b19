//! What goes ahead of a message: a digest of the operation's name, the step, the length. A rank that is somewhere else in the
//! program is found by it.

use sha2::{Digest, Sha256};

use super::{Call, ParallelError};

/// Its bytes.
pub(super) const HEADER: usize = 24;

/// Makes the header of a message.
pub(super) fn header(call: Call, length: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&Sha256::digest(call.op.as_bytes())[..8]);
    header[8..16].copy_from_slice(&call.step.to_ne_bytes());
    header[16..].copy_from_slice(&(length as u64).to_ne_bytes());
    header
}

/// Reads how much a rank will send.
///
/// # Errors
/// [`ParallelError::OutOfStep`] when the message belongs to another call.
pub(super) fn length(call: Call, rank: usize, got: &[u8]) -> Result<usize, ParallelError> {
    let (words, _) = got.as_chunks::<8>();
    if got[..16] == header(call, 0)[..16] {
        return Ok(u64::from_ne_bytes(words[2]) as usize);
    }
    let Call { op, step, .. } = call;
    let got = format!("something else of step {}", u64::from_ne_bytes(words[1]));
    Err(ParallelError::OutOfStep { rank, op, step, got, expected: format!("`{op}` of step {step}") })
}
