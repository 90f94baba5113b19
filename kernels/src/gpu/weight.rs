//! A frozen weight on a device: its storage packed in words, decoded element by element inside kernels.
//!
//! `codes` holds the packed elements (f32: one a word, bf16: two, int8: four, NF4: eight, in the byte order of the
//! host storage) and behind them, with double quantization, the codes of the scales, four a word. `table` holds what
//! is looked up: NF4's 16 values, the 256 of the scales' map and their offset, then the scales.

use std::fmt;

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::prelude::*;

use super::Words;
use crate::frozen::Storage;
use crate::int8::{Int8, reference::RECIPROCAL};
use crate::nf4::{Absmax, CODE, Nf4};

/// Entries before the nested scales: NF4's values, the scales' map, their offset.
const NESTED_AT: usize = 16 + 256 + 1;

/// How the elements are packed: a kernel is compiled for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// One f32 a word.
    F32,
    /// Two bf16 a word.
    Bf16,
    /// Four signed bytes a word; one scale a row.
    Int8,
    /// Eight codes a word; a scale for `1 << block_log2` elements.
    Nf4 {
        /// Binary logarithm of the block size.
        block_log2: u32,
        /// Codes that share a nested scale; 0 without double quantization.
        nested_block: u32,
    },
}

/// A frozen weight whose elements are on a device. Clones share them.
#[derive(Clone)]
pub struct DeviceWeight {
    pub(crate) client: Client,
    pub(crate) kind: Kind,
    pub(crate) codes: Words,
    pub(crate) table: Words,
    /// Words before the codes of the scales.
    pub(crate) scale_codes_at: usize,
    /// Elements of the matrix.
    pub(crate) len: usize,
    /// Bytes that the host storage took, and the buffers take, up to the rounding to words.
    pub(crate) bytes: usize,
}

impl fmt::Debug for DeviceWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, len, bytes, .. } = self;
        write!(f, "DeviceWeight({kind:?}, {len} elements, {bytes} bytes)")
    }
}

impl DeviceWeight {
    /// Copies a host storage to the device of `client`.
    ///
    /// # Panics
    /// When the storage is on a device already.
    pub(crate) fn upload(client: &Client, storage: &Storage) -> Self {
        let (kind, codes, table, scale_codes_at, len, bytes) = match storage {
            Storage::F32(values) => {
                (Kind::F32, Words::upload(client, values), Vec::new(), 0, values.len(), values.len() * 4)
            }
            Storage::Bf16(values) => {
                let codes = packed(client, bytemuck::cast_slice(values));
                (Kind::Bf16, codes, Vec::new(), 0, values.len(), values.len() * 2)
            }
            Storage::Int8(int8) => {
                let Int8 { codes, row_absmax, .. } = int8;
                let words = packed(client, bytemuck::cast_slice(codes));
                (Kind::Int8, words, row_absmax.clone(), 0, codes.len(), int8.bytes())
            }
            Storage::Nf4(nf4) => {
                let (kind, codes, table, at) = nf4_parts(client, nf4);
                (kind, codes, table, at, nf4.len(), nf4.bytes())
            }
            Storage::Device(_) => unreachable!("`FrozenWeight::on` uploads host storage only"),
        };
        let table = Words::upload(client, &table);
        Self { client: client.clone(), kind, codes, table, scale_codes_at, len, bytes }
    }
}

/// Bytes as words, the last one filled up with zeros.
fn packed(client: &Client, bytes: &[u8]) -> Words {
    match bytemuck::try_cast_slice::<u8, u32>(bytes) {
        Ok(words) => Words::upload(client, words),
        Err(_) => Words::upload(client, &to_words(bytes)),
    }
}

fn to_words(bytes: &[u8]) -> Vec<u32> {
    let word = |bytes: &[u8]| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        u32::from_ne_bytes(word)
    };
    bytes.chunks(4).map(word).collect()
}

fn nf4_parts(client: &Client, nf4: &Nf4) -> (Kind, Words, Vec<f32>, usize) {
    let mut table = CODE.to_vec();
    let block_log2 = nf4.block_size.trailing_zeros();
    match &nf4.absmax {
        Absmax::Single(absmax) => {
            table.extend_from_slice(absmax);
            (Kind::Nf4 { block_log2, nested_block: 0 }, packed(client, &nf4.packed), table, 0)
        }
        Absmax::Double { codes, nested_absmax, nested_block, offset, map } => {
            table.extend_from_slice(&map[..]);
            table.push(*offset);
            table.extend_from_slice(nested_absmax);
            let mut words = to_words(&nf4.packed);
            let at = words.len();
            words.extend(to_words(codes));
            let kind = Kind::Nf4 { block_log2, nested_block: *nested_block as u32 };
            (kind, Words::upload(client, &words), table, at)
        }
    }
}

/// Decodes element `at` of the flattened matrix, which lies in row `row`.
#[cube]
pub(crate) fn element(
    codes: &[u32],
    table: &[f32],
    at: usize,
    row: usize,
    scale_codes_at: usize,
    #[comptime] kind: Kind,
) -> f32 {
    if comptime!(kind == Kind::F32) {
        f32::reinterpret(codes[at])
    } else if comptime!(kind == Kind::Bf16) {
        let word = codes[at / 2];
        f32::reinterpret((word >> (16u32 * (at % 2) as u32)) << 16u32)
    } else if comptime!(kind == Kind::Int8) {
        let word = codes[at / 4];
        let byte = i32::reinterpret(word << (24u32 - 8u32 * (at % 4) as u32)) >> 24i32;
        f32::cast_from(byte) * table[row] * RECIPROCAL
    } else {
        nf4_element(codes, table, at, scale_codes_at, kind)
    }
}

#[cube]
fn nf4_element(
    codes: &[u32],
    table: &[f32],
    at: usize,
    scale_codes_at: usize,
    #[comptime] kind: Kind,
) -> f32 {
    let (block_log2, nested_block) = comptime!(match kind {
        Kind::Nf4 { block_log2, nested_block } => (block_log2, nested_block as usize),
        _ => unreachable!("the other kinds are decoded by `element`"),
    });
    // Two codes a byte, the even element in the high half.
    let shift = ((at % 8) as u32 ^ 1u32) * 4u32;
    let value = table[((codes[at / 8] >> shift) & 15u32) as usize];
    let block = at >> comptime!(block_log2 as usize);
    if comptime!(nested_block == 0) {
        value * table[16 + block]
    } else {
        let code = (codes[scale_codes_at + block / 4] >> (8u32 * (block % 4) as u32)) & 255u32;
        let scale = table[16 + code as usize] * table[NESTED_AT + block / nested_block];
        value * (scale + table[NESTED_AT - 1])
    }
}
