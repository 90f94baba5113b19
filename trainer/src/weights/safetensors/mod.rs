//! safetensors headers, read as hostile input.
//!
//! A file is the header's length as `u64`, a JSON object, then the tensors' bytes, without holes. The header is
//! parsed here and not by the `safetensors` crate, whose errors carry no numbers and which silently takes the last
//! of duplicate names.
//!
//! Source: <https://huggingface.co/docs/safetensors>, "Format".

mod json;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

/// Longest header that is read, in bytes; the limit of the safetensors library.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Element types of safetensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub enum ElementType {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl ElementType {
    const ALL: [(Self, &str, u64); 15] = [
        (Self::F64, "F64", 8),
        (Self::F32, "F32", 4),
        (Self::F16, "F16", 2),
        (Self::BF16, "BF16", 2),
        (Self::F8E4M3, "F8_E4M3", 1),
        (Self::F8E5M2, "F8_E5M2", 1),
        (Self::I64, "I64", 8),
        (Self::I32, "I32", 4),
        (Self::I16, "I16", 2),
        (Self::I8, "I8", 1),
        (Self::U64, "U64", 8),
        (Self::U32, "U32", 4),
        (Self::U16, "U16", 2),
        (Self::U8, "U8", 1),
        (Self::Bool, "BOOL", 1),
    ];

    fn row(self) -> (Self, &'static str, u64) {
        Self::ALL[self as usize]
    }

    /// Name in safetensors headers.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        self.row().2
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// What is wrong with a safetensors file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each field is")]
pub enum SafetensorsError {
    /// Shorter than the length field.
    #[error("file ends inside the header length: expected 8 bytes, got {got}")]
    NoLength { got: u64 },
    /// The header ends behind the end of the file.
    #[error("file ends inside the header: expected {expected} bytes, got {got}")]
    HeaderTruncated { expected: u64, got: u64 },
    /// The header is longer than any real one.
    #[error("header of {got} bytes is longer than the limit of {MAX_HEADER_BYTES} bytes")]
    HeaderTooLong { got: u64 },
    /// The header is not UTF-8.
    #[error("header is not valid UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    /// The header is not JSON of the right form.
    #[error("header is not a valid JSON object of tensors")]
    Json(#[from] serde_json::Error),
    /// A name appears twice.
    #[error("tensor `{tensor}` appears twice in the header")]
    Duplicate { tensor: String },
    /// An element type that the format does not have.
    #[error("tensor `{tensor}` has the unknown type `{dtype}`")]
    UnknownType { tensor: String, dtype: String },
    /// The number of bytes overflows.
    #[error("tensor `{tensor}` of shape {shape:?} is too large")]
    TooLarge { tensor: String, shape: Vec<u64> },
    /// Shape and type do not give the stored size.
    #[error(
        "tensor `{tensor}` of shape {shape:?} and type {dtype} takes {expected} bytes, but its offsets {begin} to {end} give {got}"
    )]
    Size {
        tensor: String,
        shape: Vec<u64>,
        dtype: &'static str,
        expected: u64,
        begin: u64,
        end: u64,
        got: i128,
    },
    /// Two tensors share bytes.
    #[error("tensor `{tensor}` begins at byte {begin} inside tensor `{other}`, which ends at byte {end}")]
    Overlap { tensor: String, begin: u64, other: String, end: u64 },
    /// Bytes between tensors belong to none.
    #[error("tensor `{tensor}` begins at byte {begin}, expected {expected}: there is a hole in the data")]
    Hole { tensor: String, begin: u64, expected: u64 },
    /// The file ends before the last tensor.
    #[error("file ends early: tensors take {expected} bytes, got {got}")]
    Truncated { expected: u64, got: u64 },
    /// Bytes follow the last tensor.
    #[error("{extra} bytes follow the last tensor, expected none")]
    Trailing { extra: u64 },
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Element type.
    pub dtype: ElementType,
    /// Shape.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub range: Range<usize>,
}

/// The tensors of a file by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Entry>,
}

impl Header {
    /// Reads and checks the header of a whole file.
    ///
    /// Allocates no more than a small multiple of the header's own length.
    ///
    /// # Errors
    /// [`SafetensorsError`]; a header that is returned describes bytes that are all there.
    pub fn parse(file: &[u8]) -> Result<Self, SafetensorsError> {
        let file_bytes = file.len() as u64;
        let Some((length, rest)) = file.split_first_chunk() else {
            return Err(SafetensorsError::NoLength { got: file_bytes });
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER_BYTES {
            return Err(SafetensorsError::HeaderTooLong { got: length });
        }
        if length > rest.len() as u64 {
            return Err(SafetensorsError::HeaderTruncated { expected: length + 8, got: file_bytes });
        }
        let (header, data) = rest.split_at(length as usize);
        let raw = json::parse(std::str::from_utf8(header)?)?;
        let mut entries = Vec::with_capacity(raw.len());
        for (name, raw) in raw {
            let dtype = raw.check(&name)?;
            entries.push((raw.data_offsets, name, dtype, raw.shape));
        }
        check_layout(&mut entries, data.len() as u64)?;
        let start = length as usize + 8;
        let mut tensors = BTreeMap::new();
        for ([begin, end], tensor, dtype, shape) in entries {
            // Every number was checked against the file's length, which fits in usize.
            let range = start + begin as usize..start + end as usize;
            let shape = shape.into_iter().map(|dim| dim as usize).collect();
            if tensors.insert(tensor.clone(), Entry { dtype, shape, range }).is_some() {
                return Err(SafetensorsError::Duplicate { tensor });
            }
        }
        Ok(Self { tensors })
    }
}

type Placed = ([u64; 2], String, ElementType, Vec<u64>);

/// Checks that the tensors fill the data from its first to its last byte, each byte once.
fn check_layout(entries: &mut [Placed], data_bytes: u64) -> Result<(), SafetensorsError> {
    entries.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let (mut position, mut other) = (0, "");
    for ([begin, end], tensor, ..) in &*entries {
        let (begin, end) = (*begin, *end);
        let tensor_name = || tensor.clone();
        if begin < position {
            if tensor == other {
                return Err(SafetensorsError::Duplicate { tensor: tensor_name() });
            }
            let other = other.to_owned();
            return Err(SafetensorsError::Overlap { tensor: tensor_name(), begin, other, end: position });
        }
        if begin > position {
            return Err(SafetensorsError::Hole { tensor: tensor_name(), begin, expected: position });
        }
        (position, other) = (end, tensor);
    }
    if position > data_bytes {
        return Err(SafetensorsError::Truncated { expected: position, got: data_bytes });
    }
    if position < data_bytes {
        return Err(SafetensorsError::Trailing { extra: data_bytes - position });
    }
    Ok(())
}
