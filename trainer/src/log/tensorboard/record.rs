//! The framing of event files: length, checksum of the length, content, checksum of the content.
//!
//! # Source
//! TensorFlow, `tensorflow/core/lib/io/record_writer.h`: numbers are little-endian, each checksum is a CRC-32C
//! that is rotated and shifted by a constant, so that a checksum of data which holds checksums stays good.

/// Bytes before the content.
const HEAD: usize = 12;
/// Bytes after it.
const TAIL: usize = 4;

/// Frames one record.
pub(super) fn frame(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut framed = Vec::with_capacity(HEAD + content.len() + TAIL);
    framed.extend_from_slice(&length);
    framed.extend_from_slice(&masked_crc(&length).to_le_bytes());
    framed.extend_from_slice(content);
    framed.extend_from_slice(&masked_crc(content).to_le_bytes());
    framed
}

/// Goes through the contents of framed records, up to the first that is cut off or damaged.
pub(super) fn contents(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*checksum) != masked_crc(length) {
            return None;
        }
        let (content, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let (checksum, rest) = rest.split_first_chunk::<TAIL>()?;
        bytes = rest;
        (u32::from_le_bytes(*checksum) == masked_crc(content)).then_some(content)
    })
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CRC-32C of RFC 3720, appendix B.4, and masks of `masked_crc32c` in PyPI `tensorboard` 2.21
    /// (`tensorboard/compat/tensorflow_stub/pywrap_tensorflow.py`).
    #[test]
    fn checksums_are_the_known_ones() {
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, crc, masked) in [
            (&[0u8; 32][..], 0x8a91_36aa, 0x0fd7_fffa),
            (&[0xff; 32][..], 0x62a8_ab43, 0xf909_b029),
            (&ascending[..], 0x46dd_794e, 0x951f_7892),
            (b"123456789", 0xe306_9283, 0xc78a_b0e5),
        ] {
            assert_eq!(crc32c::crc32c(bytes), crc);
            assert_eq!(masked_crc(bytes), masked, "{bytes:?}");
        }
    }

    #[test]
    fn records_come_back_until_one_is_damaged() {
        let records: [&[u8]; 3] = [b"first", b"", &[7; 300]];
        let file: Vec<u8> = records.iter().flat_map(|content| frame(content)).collect();
        assert_eq!(contents(&file).collect::<Vec<_>>(), records);
        for cut in 0..file.len() {
            let whole = contents(&file[..cut]).count();
            let ends = [21, 37, 353];
            assert_eq!(whole, ends.iter().filter(|end| cut >= **end).count(), "cut at {cut}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            let read: Vec<_> = contents(&damaged).collect();
            assert!(read.len() < 3 && read == records[..read.len()], "byte {at}");
        }
        // A length that no file has is a fault, not a request for memory.
        let mut huge = (u64::MAX).to_le_bytes().to_vec();
        huge.extend_from_slice(&masked_crc(&huge.clone()).to_le_bytes());
        assert_eq!(contents(&huge).count(), 0);
    }
}
