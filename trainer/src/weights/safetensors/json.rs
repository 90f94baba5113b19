//! The JSON object at the start of a safetensors file.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::{ElementType, SafetensorsError};

/// One tensor as the header states it, unchecked.
#[derive(Debug, Deserialize)]
pub(super) struct RawEntry {
    dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) data_offsets: [u64; 2],
}

impl RawEntry {
    /// Checks type, shape and offsets against each other.
    pub(super) fn check(&self, name: &str) -> Result<ElementType, SafetensorsError> {
        let tensor = || name.to_owned();
        let Some(dtype) = ElementType::from_name(&self.dtype) else {
            return Err(SafetensorsError::UnknownType { tensor: tensor(), dtype: self.dtype.clone() });
        };
        // A zero dimension makes the product zero, but the others must still be sizes that exist.
        let size = self.shape.iter().try_fold(dtype.bytes(), |size, &dim| {
            usize::try_from(dim).ok().and_then(|_| size.checked_mul(dim))
        });
        let Some(expected) = size else {
            return Err(SafetensorsError::TooLarge { tensor: tensor(), shape: self.shape.clone() });
        };
        let [begin, end] = self.data_offsets;
        let got = i128::from(end) - i128::from(begin);
        if got != i128::from(expected) {
            let (shape, dtype) = (self.shape.clone(), dtype.name());
            return Err(SafetensorsError::Size { tensor: tensor(), shape, dtype, expected, begin, end, got });
        }
        Ok(dtype)
    }
}

/// Parses the header; duplicate names are kept, so that the caller can refuse them.
pub(super) fn parse(text: &str) -> Result<Vec<(String, RawEntry)>, serde_json::Error> {
    Ok(serde_json::from_str::<RawHeader>(text)?.0)
}

struct RawHeader(Vec<(String, RawEntry)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<BTreeMap<String, String>>()?;
            } else {
                entries.push((name, map.next_value()?));
            }
        }
        Ok(RawHeader(entries))
    }
}
