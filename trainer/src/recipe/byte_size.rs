//! A size of memory as a recipe writes it: a number of bytes, or a number with a unit.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// Bytes of each unit.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
/// More than any machine has; keeps sums within 64 bit.
const MAX_BYTES: u64 = 1 << 50;

/// A size as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ByteSize {
    /// In bytes.
    Bytes(i64),
    /// A number and a unit.
    Text(String),
}

impl ByteSize {
    /// Returns the bytes, or `None` when the text is no size or the size is none that memory can have.
    pub fn bytes(&self) -> Option<u64> {
        let bytes = match self {
            ByteSize::Bytes(bytes) => u64::try_from(*bytes).ok()?,
            ByteSize::Text(text) => {
                let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
                let unit = &text[digits.len()..];
                let (_, scale) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
                let number = digits.trim();
                if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
                    return None;
                }
                // Saturates where the number is too large, which the bound then refuses.
                (number.parse::<f64>().ok()? * *scale as f64) as u64
            }
        };
        (bytes <= MAX_BYTES).then_some(bytes)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ByteSize::Bytes(bytes) => write!(out, "{bytes}"),
            ByteSize::Text(text) => out.write_str(&text.chars().take(40).collect::<String>()),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number of bytes or a size like `4 GiB`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                Ok(ByteSize::Text(text.to_owned()))
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                Ok(ByteSize::Bytes(bytes))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Writes bytes for people: three figures and the largest unit of 1000 that fits.
pub fn shown(bytes: u64) -> String {
    let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    let value = bytes as f64;
    match units.iter().find(|(_, scale)| value >= *scale) {
        Some((unit, scale)) if value / scale >= 99.95 => format!("{:.0} {unit}", value / scale),
        Some((unit, scale)) if value / scale >= 9.995 => format!("{:.1} {unit}", value / scale),
        Some((unit, scale)) => format!("{:.2} {unit}", value / scale),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_and_units() {
        let text = |text: &str| ByteSize::Text(text.to_owned()).bytes();
        assert_eq!(ByteSize::Bytes(17).bytes(), Some(17));
        assert_eq!(text("4 GiB"), Some(4 << 30));
        assert_eq!(text("4gib"), Some(4 << 30));
        assert_eq!(text("1.5 GB"), Some(1_500_000_000));
        assert_eq!(text("512 MiB"), Some(512 << 20));
        assert_eq!(text("100 B"), Some(100));
        for wrong in
            ["", "GiB", "4", "4 G", "4 GiBs", "-4 GiB", "1e3 B", "inf B", "nan GB", "4 GiB 2", "1..2 B"]
        {
            assert_eq!(text(wrong), None, "{wrong}");
        }
        assert_eq!(text("9999999999 TiB"), None);
        assert_eq!(ByteSize::Bytes(-1).bytes(), None);
        assert_eq!(ByteSize::Bytes(i64::MAX).bytes(), None);
    }

    #[test]
    fn shows_three_figures() {
        let all = [0, 999, 1000, 12_345, 123_456, 99_960_000, 1_500_000_000].map(shown);
        assert_eq!(all, ["0 B", "999 B", "1.00 KB", "12.3 KB", "123 KB", "100 MB", "1.50 GB"]);
    }
}
