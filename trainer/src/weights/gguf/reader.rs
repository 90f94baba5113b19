//! The GGUF header, read as hostile input from a byte slice.
//!
//! Metadata values are checked when the header is read but stay in the file: strings and arrays are kept as ranges,
//! so that a header takes no more memory than its own size class, whatever its counts claim.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use seedcorn_kernels::ggml::GgmlType;

use super::error::GgufError;
use super::types;

/// The first bytes of a GGUF file.
pub const MAGIC: &[u8; 4] = b"GGUF";

/// Levels of arrays in arrays.
pub(super) const MAX_DEPTH: u32 = 4;

/// Fewest bytes of a key and value (length of the key, type, one byte of value).
const MIN_VALUE_BYTES: u64 = 13;
/// Fewest bytes of a tensor's entry (length, dimensions, type, offset).
const MIN_TENSOR_BYTES: u64 = 24;

/// A metadata value; text and arrays are ranges of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Uint(u64),
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(Range<usize>),
    Array { ty: u32, count: usize, range: Range<usize> },
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Name in the file.
    pub name: String,
    /// Row-major shape: the reverse of the file's own order.
    pub shape: Vec<usize>,
    /// Storage type.
    pub ty: GgmlType,
    /// Its bytes in the file.
    pub range: Range<usize>,
}

impl Tensor {
    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Everything before the tensors' bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    /// Tensors in the file's order.
    pub tensors: Vec<Tensor>,
}

impl Header {
    /// Reads and checks the header of a whole file.
    ///
    /// # Errors
    /// [`GgufError`]; a header that is returned describes bytes that are all there.
    pub fn parse(file: &[u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor { file, position: 0 };
        if !file.starts_with(MAGIC) {
            return Err(GgufError::Magic { got: file[..file.len().min(4)].to_vec() });
        }
        cursor.take("the magic", 4)?;
        match cursor.u32("the version")? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 1..=3) => return Err(GgufError::BigEndian),
            got => return Err(GgufError::Version { got }),
        }
        let tensor_count = cursor.count("tensor", MIN_TENSOR_BYTES)?;
        let value_count = cursor.count("metadata", MIN_VALUE_BYTES)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..value_count {
            let key = cursor.text("a metadata key")?.to_owned();
            let ty = cursor.u32("a value type")?;
            let value = cursor.value(&key, ty, 0)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(GgufError::DuplicateKey { key });
            }
        }
        let mut entries = Vec::new();
        for _ in 0..tensor_count {
            entries.push(cursor.entry()?);
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Uint(alignment)) if alignment.is_power_of_two() => *alignment,
            Some(Value::Uint(got)) => return Err(GgufError::Alignment { got: *got }),
            Some(_) => {
                let key = "general.alignment".to_owned();
                return Err(GgufError::KeyType { key, expected: "an unsigned number" });
            }
        };
        let start = (cursor.position as u64).checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
        let mut names = HashSet::new();
        let mut tensors = Vec::with_capacity(entries.len());
        for entry in entries {
            let tensor = entry.place(start, alignment, file.len() as u64)?;
            if !names.insert(tensor.name.clone()) {
                return Err(GgufError::DuplicateTensor { tensor: tensor.name });
            }
            tensors.push(tensor);
        }
        Ok(Self { metadata, tensors })
    }
}

/// A tensor's entry, its place not yet checked.
struct Entry {
    name: String,
    /// Fastest axis first.
    dims: Vec<u64>,
    ty: GgmlType,
    offset: u64,
}

impl Entry {
    fn place(self, start: u64, alignment: u64, file_bytes: u64) -> Result<Tensor, GgufError> {
        let Self { name: tensor, dims, ty, offset } = self;
        let block = ty.block_len() as u64;
        let row = dims.first().copied().unwrap_or(1);
        if !row.is_multiple_of(block) {
            return Err(GgufError::Row { tensor, row, ty: ty.name(), block: ty.block_len() });
        }
        let size = dims
            .iter()
            .try_fold(1_u64, |size, &dim| usize::try_from(dim).ok().and_then(|_| size.checked_mul(dim)));
        let Some(bytes) = size.and_then(|size| (size / block).checked_mul(ty.block_bytes() as u64)) else {
            return Err(GgufError::TooLarge { tensor, shape: dims });
        };
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned { tensor, offset, alignment });
        }
        let available = file_bytes.saturating_sub(start);
        if bytes > available || offset > available - bytes {
            return Err(GgufError::Range { tensor, offset, bytes, available });
        }
        let begin = start.saturating_add(offset).min(file_bytes) as usize;
        let shape = dims.iter().rev().map(|&dim| dim as usize).collect();
        Ok(Tensor { name: tensor, shape, ty, range: begin..begin + bytes as usize })
    }
}

/// A place in the file.
struct Cursor<'a> {
    file: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> u64 {
        (self.file.len() - self.position) as u64
    }

    fn take(&mut self, what: &'static str, len: u64) -> Result<&'a [u8], GgufError> {
        let (offset, left) = (self.position as u64, self.left());
        if len > left {
            return Err(GgufError::Truncated { what, offset, needed: len, left });
        }
        let bytes = &self.file[self.position..self.position + len as usize];
        self.position += len as usize;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(what, N as u64)?);
        Ok(bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of things that take at least `min_bytes` each.
    fn count(&mut self, what: &'static str, min_bytes: u64) -> Result<u64, GgufError> {
        let got = self.u64("a count")?;
        let limit = self.left() / min_bytes;
        if got > limit { Err(GgufError::Count { what, got, limit }) } else { Ok(got) }
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, GgufError> {
        let len = self.u64(what)?;
        let offset = self.position as u64;
        std::str::from_utf8(self.take(what, len)?).map_err(|_| GgufError::Utf8 { what, offset })
    }

    fn value(&mut self, key: &str, ty: u32, depth: u32) -> Result<Value, GgufError> {
        const WHAT: &str = "a metadata value";
        Ok(match ty {
            0 => Value::Uint(self.array::<1>(WHAT)?[0].into()),
            1 => Value::Int(i8::from_le_bytes(self.array(WHAT)?).into()),
            2 => Value::Uint(u16::from_le_bytes(self.array(WHAT)?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array(WHAT)?).into()),
            4 => Value::Uint(self.u32(WHAT)?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array(WHAT)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(WHAT)?).into()),
            7 => Value::Bool(self.array::<1>(WHAT)?[0] != 0),
            8 => {
                let end = self.text("a metadata text")?.len();
                Value::Text(self.position - end..self.position)
            }
            9 => return self.array_value(key, depth),
            10 => Value::Uint(self.u64(WHAT)?),
            11 => Value::Int(i64::from_le_bytes(self.array(WHAT)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(WHAT)?)),
            got => return Err(GgufError::ValueType { key: key.to_owned(), got }),
        })
    }

    fn array_value(&mut self, key: &str, depth: u32) -> Result<Value, GgufError> {
        if depth == MAX_DEPTH {
            return Err(GgufError::Depth { key: key.to_owned() });
        }
        let ty = self.u32("an array type")?;
        let min_bytes = match ty {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            got => return Err(GgufError::ValueType { key: key.to_owned(), got }),
        };
        let count = self.count("array element", min_bytes)?;
        let begin = self.position;
        if matches!(ty, 8 | 9) {
            for _ in 0..count {
                self.value(key, ty, depth + 1)?;
            }
        } else {
            self.take("an array", count * min_bytes)?;
        }
        Ok(Value::Array { ty, count: count as usize, range: begin..self.position })
    }

    fn entry(&mut self) -> Result<Entry, GgufError> {
        let name = self.text("a tensor name")?.to_owned();
        let got = self.u32("a tensor's dimensions")?;
        if got > 4 {
            return Err(GgufError::Dimensions { tensor: name, got });
        }
        let mut dims = Vec::new();
        for _ in 0..got {
            dims.push(self.u64("a tensor's shape")?);
        }
        let id = self.u32("a tensor's type")?;
        let offset = self.u64("a tensor's offset")?;
        let Some(ty) = GgmlType::from_id(id) else {
            return Err(GgufError::TensorType { tensor: name, name: types::name(id), id });
        };
        Ok(Entry { name, dims, ty, offset })
    }
}
