//! A frozen weight on a device: its storage packed in words, decoded element by element inside kernels.
//!
//! `codes` holds the packed elements (f32: one a word, bf16: two, int8: four, NF4: eight, in the byte order of the
//! host storage) and behind them, with double quantization, the codes of the scales, four a word. `table` holds what
//! is looked up: with double quantization the 256 values of the scales' map and their offset, then the scales.

use std::fmt;

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::prelude::*;

use super::Words;
use crate::device::TooLarge;
use crate::frozen::Storage;
use crate::int8::{Int8, reference::RECIPROCAL};
use crate::nf4::{Absmax, CODE, Nf4};

/// Entries before the nested scales: the scales' map, their offset.
const NESTED_AT: usize = 256 + 1;

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

impl Kind {
    /// Elements of a word that share a scale.
    pub(crate) fn elements_of_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
            Self::Nf4 { block_log2, .. } => 8.min(1 << block_log2),
        }
    }
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
    /// Copies a host storage to the device of `client`, into buffers that hold nothing else: weights stay.
    ///
    /// # Errors
    /// [`TooLarge`], before anything is copied.
    ///
    /// # Panics
    /// When the storage is on a device already.
    pub(crate) fn upload(client: &Client, storage: &Storage) -> Result<Self, TooLarge> {
        let (bytes, largest) = (largest_buffer(storage), client.properties().memory.max_page_size);
        if bytes > largest {
            return Err(TooLarge { bytes, largest });
        }
        Ok(client.memory_persistent_allocation((), |()| Self::copied(client, storage)))
    }

    fn copied(client: &Client, storage: &Storage) -> Self {
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

/// Bytes of the largest buffer that a storage is copied to.
fn largest_buffer(storage: &Storage) -> u64 {
    let bytes = match storage {
        Storage::F32(values) => values.len() * 4,
        Storage::Bf16(values) => values.len() * 2,
        Storage::Int8(int8) => int8.codes.len().max(int8.row_absmax.len() * 4),
        Storage::Nf4(nf4) => match &nf4.absmax {
            Absmax::Single(absmax) => nf4.packed.len().max(absmax.len() * 4),
            Absmax::Double { codes, .. } => nf4.packed.len() + codes.len(),
        },
        Storage::Device(_) => 0,
    };
    bytes as u64
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
    let mut table = Vec::new();
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
    // Two codes a byte, the even element in the high half.
    let shift = ((at % 8) as u32 ^ 1u32) * 4u32;
    nf4_value(codes[at / 8] >> shift) * nf4_scale(codes, table, at, scale_codes_at, kind)
}

/// The scale of the block that element `at` lies in.
#[cube]
fn nf4_scale(codes: &[u32], table: &[f32], at: usize, scale_codes_at: usize, #[comptime] kind: Kind) -> f32 {
    let (block_log2, nested_block) = comptime!(match kind {
        Kind::Nf4 { block_log2, nested_block } => (block_log2, nested_block as usize),
        _ => unreachable!("the other kinds have no blocks"),
    });
    let block = at >> comptime!(block_log2 as usize);
    if comptime!(nested_block == 0) {
        table[block]
    } else {
        let code = (codes[scale_codes_at + block / 4] >> (8u32 * (block % 4) as u32)) & 255u32;
        table[code as usize] * table[NESTED_AT + block / nested_block] + table[NESTED_AT - 1]
    }
}

/// Looks the low four bits up in NF4's values: a tree of choices takes less time than memory does.
#[cube]
fn nf4_value(code: u32) -> f32 {
    let mut values = Array::<u32>::new(8usize);
    let odd = code & 1u32 != 0u32;
    #[unroll]
    for i in 0..8usize {
        values[i] = select(
            odd,
            comptime!(CODE[2 * i + 1].to_bits()).runtime(),
            comptime!(CODE[2 * i].to_bits()).runtime(),
        );
    }
    #[unroll]
    for level in 1..4u32 {
        let high = (code >> level) & 1u32 != 0u32;
        #[unroll]
        for i in 0..comptime!(8usize >> level) {
            values[i] = select(high, values[comptime!(2 * i + 1)], values[comptime!(2 * i)]);
        }
    }
    f32::reinterpret(values[0])
}

/// Decodes all elements of the word that starts with element `at`, which lie in row `row`: as [`element`], with one look
/// at their scale.
#[cube]
pub(crate) fn elements_of_word(
    codes: &[u32],
    table: &[f32],
    at: usize,
    row: usize,
    scale_codes_at: usize,
    values: &mut Array<f32>,
    #[comptime] kind: Kind,
) {
    let count = comptime!(kind.elements_of_word());
    let word = codes[at / count];
    if comptime!(kind == Kind::Bf16) {
        values[0] = f32::reinterpret(word << 16u32);
        values[1] = f32::reinterpret(word & 0xffff_0000_u32);
    } else if comptime!(kind == Kind::Int8) {
        let scale = table[row];
        #[unroll]
        for i in 0..count {
            let byte = i32::reinterpret(word << comptime!(24 - 8 * i as u32)) >> 24i32;
            values[i] = f32::cast_from(byte) * scale * RECIPROCAL;
        }
    } else {
        let scale = nf4_scale(codes, table, at, scale_codes_at, kind);
        #[unroll]
        for i in 0..count {
            values[i] = nf4_value(word >> comptime!((i as u32 ^ 1) * 4)) * scale;
        }
    }
}
