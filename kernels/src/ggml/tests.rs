//! Each block format against gguf-py's numbers (`tests/fixtures/ggml`, made by `make_ggml.py`).

use super::*;
use crate::isa::Tier;

/// Little-endian: for each type its id, its number of blocks, the blocks, the expected values.
const FIXTURE: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/ggml/blocks.bin"));

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(len);
    *rest = tail;
    head
}

fn take_u32(rest: &mut &[u8]) -> u32 {
    u32::from_le_bytes(take(rest, 4).try_into().unwrap())
}

#[test]
fn every_type_is_bit_equal_to_gguf_py() {
    let mut rest = FIXTURE;
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let ty = GgmlType::from_id(take_u32(&mut rest)).unwrap();
        let blocks = take_u32(&mut rest) as usize;
        let bytes = take(&mut rest, blocks * ty.block_bytes());
        let expected = take(&mut rest, blocks * ty.block_len() * 4).as_chunks().0;
        for tier in Tier::available() {
            let mut out = vec![f32::NAN; expected.len()];
            cpu::dequantize(tier, ty, bytes, &mut out);
            for (i, (value, expected)) in out.iter().zip(expected).enumerate() {
                let expected = u32::from_le_bytes(*expected);
                assert_eq!(value.to_bits(), expected, "{} on {}, value {i}", ty.name(), tier.name());
            }
        }
        seen.push(ty);
    }
    assert_eq!(seen, GgmlType::ALL);
}

#[test]
fn tasks_and_threads_change_nothing() {
    let ty = GgmlType::Q5K;
    let blocks = 3 * TASK_VALUES / ty.block_len() + 5;
    let bytes: Vec<u8> = (0..blocks * ty.block_bytes()).map(|i| (i * i / 7 % 59) as u8).collect();
    let (mut parallel, mut serial) = (vec![0.0; blocks * 256], vec![0.0; blocks * 256]);
    dequantize(ty, &bytes, &mut parallel);
    reference::dequantize(ty, &bytes, &mut serial);
    assert_eq!(parallel, serial);
}

#[test]
fn unknown_types_are_none() {
    assert_eq!(GgmlType::from_id(4), None);
    assert_eq!(GgmlType::from_id(10), None);
    assert_eq!(GgmlType::from_id(u32::MAX), None);
}
