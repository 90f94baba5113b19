//! Typed access to metadata values.

use seedcorn_kernels::ggml::GgmlType;

use super::error::GgufError;
use super::reader::{Header, Tensor, Value};

/// Metadata of a file together with the bytes its texts and arrays lie in.
#[derive(Clone, Copy)]
pub(super) struct Metadata<'a> {
    header: &'a Header,
    file: &'a [u8],
}

impl<'a> Metadata<'a> {
    /// `file` must be the bytes that `header` was parsed from.
    pub(super) fn new(header: &'a Header, file: &'a [u8]) -> Self {
        Self { header, file }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.header.metadata.get(key)
    }

    /// A whole number; signed ones must not be negative.
    pub(super) fn uint(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Uint(value)) => Ok(Some(*value)),
            Some(Value::Int(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
            Some(_) => Err(wrong_type(key, "a whole number of at least 0")),
        }
    }

    /// A number of any kind.
    pub(super) fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) if value.is_finite() => Ok(Some(*value)),
            Some(Value::Uint(value)) => Ok(Some(*value as f64)),
            Some(Value::Int(value)) => Ok(Some(*value as f64)),
            Some(_) => Err(wrong_type(key, "a finite number")),
        }
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong_type(key, "true or false")),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            // The reader has checked that the text is UTF-8.
            Some(Value::Text(range)) => match std::str::from_utf8(&self.file[range.clone()]) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(wrong_type(key, "a text")),
            },
            Some(_) => Err(wrong_type(key, "a text")),
        }
    }

    /// An array of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || wrong_type(key, "an array of texts");
        let Value::Array { ty: 8, count, range } = value else { return Err(wrong()) };
        let mut rest = &self.file[range.clone()];
        let mut texts = Vec::with_capacity(*count);
        for _ in 0..*count {
            let (len, tail) = rest.split_first_chunk().ok_or_else(wrong)?;
            let (text, tail) = tail.split_at_checked(u64::from_le_bytes(*len) as usize).ok_or_else(wrong)?;
            texts.push(std::str::from_utf8(text).map_err(|_| wrong())?);
            rest = tail;
        }
        Ok(Some(texts))
    }

    /// The values of a tensor of type F32; `None` for other types.
    pub(super) fn f32_tensor(&self, tensor: &Tensor) -> Option<Vec<f32>> {
        let words = self.file[tensor.range.clone()].as_chunks().0;
        (tensor.ty == GgmlType::F32).then(|| words.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    /// An array of 32-bit integers.
    pub(super) fn ints(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array { ty: 4 | 5, range, .. }) => {
                let words = self.file[range.clone()].as_chunks().0;
                Ok(Some(words.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect()))
            }
            Some(_) => Err(wrong_type(key, "an array of 32-bit integers")),
        }
    }
}

fn wrong_type(key: &str, expected: &'static str) -> GgufError {
    GgufError::KeyType { key: key.to_owned(), expected }
}

/// Turns an absent value into an error that names its key.
pub(super) fn required<T>(key: &str, value: Option<T>) -> Result<T, GgufError> {
    value.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })
}
