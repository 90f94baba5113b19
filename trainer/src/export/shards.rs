//! safetensors files written as a stream: the header follows from names and shapes, so data needs one pass.
//!
//! Source of the layout: <https://huggingface.co/docs/safetensors>; of the shards: huggingface_hub
//! `split_torch_state_dict_into_shards` (greedy in the order of names).

use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use half::bf16;
use seedcorn_adapters::folder::NewFolder;
use serde_json::{Map, Value, json};

use super::folder::ExportError;

/// Number format of exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportDtype {
    /// 16-bit brain float, rounded to nearest even.
    Bf16,
    /// 32-bit float.
    F32,
}

impl ExportDtype {
    /// Name in `config.json`.
    #[must_use]
    pub fn config_name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
        }
    }

    fn header_name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F32 => "F32",
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: u64,
}

impl Entry {
    pub(super) fn new(name: &str, shape: &[usize], dtype: ExportDtype) -> Result<Self, ExportError> {
        let bytes = shape
            .iter()
            .try_fold(dtype.bytes(), |total, size| total.checked_mul(*size as u64))
            .ok_or_else(|| ExportError::TooLarge { name: name.to_owned(), shape: shape.to_vec() })?;
        Ok(Self { name: name.to_owned(), shape: shape.to_vec(), bytes })
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Splits sorted entries greedily: a tensor that would pass `limit` bytes opens the next shard.
pub(super) fn split(entries: &[Entry], limit: u64) -> Vec<&[Entry]> {
    let (mut shards, mut start, mut size) = (Vec::new(), 0, 0_u64);
    for (at, entry) in entries.iter().enumerate() {
        if at > start && size.saturating_add(entry.bytes) > limit {
            shards.push(&entries[start..at]);
            (start, size) = (at, 0);
        }
        size = size.saturating_add(entry.bytes);
    }
    shards.push(&entries[start..]);
    shards
}

/// Names shard `at` of `count`.
pub(super) fn shard_name(at: usize, count: usize) -> String {
    if count == 1 {
        return "model.safetensors".to_owned();
    }
    format!("model-{:05}-of-{count:05}.safetensors", at + 1)
}

/// Returns the text of `model.safetensors.index.json`.
pub(super) fn index(shards: &[&[Entry]]) -> String {
    let mut map = BTreeMap::new();
    for (at, shard) in shards.iter().enumerate() {
        map.extend(shard.iter().map(|entry| (entry.name.as_str(), shard_name(at, shards.len()))));
    }
    let total: u64 = shards.iter().flat_map(|shard| shard.iter()).map(|entry| entry.bytes).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    serde_json::to_string_pretty(&index).expect("strings and numbers always print") + "\n"
}

/// Writes one file; `provide` is asked once for each tensor, in order, and its data dropped at once.
pub(super) fn write_shard(
    folder: &NewFolder,
    name: &str,
    entries: &[Entry],
    dtype: ExportDtype,
    provide: &mut dyn FnMut(&str) -> Result<Vec<f32>, ExportError>,
) -> Result<(), ExportError> {
    let mut out = BufWriter::with_capacity(1 << 20, folder.file(name)?);
    let header = header(entries, dtype);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for entry in entries {
        let values = provide(&entry.name)?;
        let (found, expected) = (values.len(), entry.elements());
        if found != expected {
            return Err(ExportError::Length { name: entry.name.clone(), found, expected });
        }
        if let Some(index) = values.iter().position(|x| !x.is_finite()) {
            return Err(ExportError::NotFinite { name: entry.name.clone(), index });
        }
        // Converted in pieces, so that no second copy of a large tensor exists.
        for piece in values.chunks(1 << 16) {
            out.write_all(&encode(piece, dtype))?;
        }
    }
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(file.sync_all()?)
}

/// Tells whether a file of weights is one that [`write_shard`] wrote: its metadata stands first and says so.
pub(super) fn is_written_here(path: &Path) -> std::io::Result<bool> {
    const MARK: &[u8] = br#"{"__metadata__":{"format":"pt","writer":"seedcorn"}"#;
    let mut head = Vec::with_capacity(8 + MARK.len());
    fs_err::File::open(path)?.take((8 + MARK.len()) as u64).read_to_end(&mut head)?;
    Ok(head.get(8..) == Some(MARK))
}

fn header(entries: &[Entry], dtype: ExportDtype) -> String {
    let mut map = Map::new();
    map.insert("__metadata__".to_owned(), json!({"format": "pt", "writer": "seedcorn"}));
    let mut offset = 0;
    for entry in entries {
        let end = offset + entry.bytes;
        let info = json!({
            "dtype": dtype.header_name(), "shape": entry.shape, "data_offsets": [offset, end],
        });
        map.insert(entry.name.clone(), info);
        offset = end;
    }
    let mut text = Value::Object(map).to_string();
    // Readers may map the file and cast, so data starts on a multiple of 8.
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    text
}

fn encode(values: &[f32], dtype: ExportDtype) -> Vec<u8> {
    match dtype {
        ExportDtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ExportDtype::Bf16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even() {
        let bits = |x: f32| {
            let bytes = encode(&[x], ExportDtype::Bf16);
            u16::from_le_bytes([bytes[0], bytes[1]])
        };
        assert_eq!(bits(f32::from_bits(0x3f80_8000)), 0x3f80, "a tie goes to the even neighbour below");
        assert_eq!(bits(f32::from_bits(0x3f81_8000)), 0x3f82, "a tie goes to the even neighbour above");
        assert_eq!(bits(f32::from_bits(0x3f80_8001)), 0x3f81);
    }

    #[test]
    fn shards_are_greedy_and_never_empty() {
        let entry = |name: &str, n: usize| Entry::new(name, &[n], ExportDtype::F32).unwrap();
        let all = [entry("a", 2), entry("b", 3), entry("c", 10), entry("d", 1)];
        let sizes = |limit| split(&all, limit).iter().map(|shard| shard.len()).collect::<Vec<_>>();
        assert_eq!(sizes(20), [2, 1, 1]);
        assert_eq!(sizes(1), [1, 1, 1, 1]);
        assert_eq!(sizes(1 << 40), [4]);
        assert_eq!(shard_name(0, 1), "model.safetensors");
        assert_eq!(shard_name(1, 3), "model-00002-of-00003.safetensors");
    }
}
