//! Files of tensors, taken apart and put together again with a fault.

use std::path::Path;

use serde_json::{Map, Value};

/// A safetensors file: its header as JSON and its data.
pub(crate) struct Tensors {
    pub(crate) header: Map<String, Value>,
    pub(crate) data: Vec<u8>,
}

impl Tensors {
    pub(crate) fn read(path: &Path) -> Tensors {
        let file = fs_err::read(path).unwrap();
        let (length, rest) = file.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&rest[..length]).unwrap();
        Tensors { header, data: rest[length..].to_vec() }
    }

    pub(crate) fn write(&self, path: &Path) {
        let header = serde_json::to_vec(&self.header).unwrap();
        let length = (header.len() as u64).to_le_bytes();
        fs_err::write(path, [&length[..], &header, &self.data].concat()).unwrap();
    }

    /// Where the data of a tensor begins.
    pub(crate) fn begin(&self, name: &str) -> usize {
        self.header[name]["data_offsets"][0].as_u64().unwrap() as usize
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<u64> {
        serde_json::from_value(self.header[name]["shape"].clone()).unwrap()
    }

    pub(crate) fn f32s(&self, name: &str) -> Vec<f32> {
        let elements: u64 = self.shape(name).iter().product();
        let bytes = &self.data[self.begin(name)..][..4 * elements as usize];
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }
}
