//! Frozen weights as the kernels read them.

use super::Kind;
use crate::frozen::{FrozenWeight, Storage};
use crate::nf4::{Absmax, CODE, Nf4};

/// A frozen weight in words. `codes` holds the packed elements in the byte order of the host storage and behind them,
/// with double quantization, the codes of the scales, four a word. `table` holds what is looked up: NF4's 16 values,
/// the 256 of the scales' map and their offset, then the scales; for int8 the largest magnitude of each row.
#[derive(Clone, Debug)]
pub struct Packed {
    pub(crate) kind: Kind,
    /// Packed elements and scale codes.
    pub codes: Vec<u32>,
    /// What the kernels look up.
    pub table: Vec<f32>,
    pub(crate) scale_codes_at: usize,
    pub(crate) shape: [usize; 2],
}

impl Packed {
    /// Packs a weight.
    pub fn new(weight: &FrozenWeight) -> Self {
        let shape = weight.shape();
        let (kind, codes, table, scale_codes_at) = match &*weight.storage() {
            Storage::F32(values) => (Kind::F32, to_words(bytemuck::cast_slice(values)), Vec::new(), 0),
            Storage::Bf16(values) => (Kind::Bf16, to_words(bytemuck::cast_slice(values)), Vec::new(), 0),
            Storage::Int8(int8) => {
                (Kind::Int8, to_words(bytemuck::cast_slice(&int8.codes)), int8.row_absmax.clone(), 0)
            }
            Storage::Nf4(nf4) => nf4_words(nf4),
            #[cfg(feature = "cube")]
            Storage::Device(_) => unreachable!("`Packed::new` takes what the host has"),
        };
        Self { kind, codes, table, scale_codes_at, shape }
    }

    /// Bytes that the kernels can read.
    pub fn bytes(&self) -> usize {
        4 * (self.codes.len() + self.table.len())
    }
}

fn nf4_words(nf4: &Nf4) -> (Kind, Vec<u32>, Vec<f32>, usize) {
    let mut table = CODE.to_vec();
    let mut codes = to_words(&nf4.packed);
    let scale_codes_at = codes.len();
    let block_log2 = nf4.block_size.trailing_zeros();
    let nested_block = match &nf4.absmax {
        Absmax::Single(absmax) => {
            table.extend_from_slice(absmax);
            0
        }
        Absmax::Double { codes: scale_codes, nested_absmax, nested_block, offset, map } => {
            table.extend_from_slice(&map[..]);
            table.push(*offset);
            table.extend_from_slice(nested_absmax);
            codes.extend(to_words(scale_codes));
            *nested_block as u32
        }
    };
    (Kind::Nf4 { block_log2, nested_block }, codes, table, scale_codes_at)
}

/// Bytes as little-endian words, the last one filled up with zeros.
fn to_words(bytes: &[u8]) -> Vec<u32> {
    let word = |bytes: &[u8]| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        u32::from_le_bytes(word)
    };
    bytes.chunks(4).map(word).collect()
}
