//! NF4 against bitsandbytes' own numbers (`tests/fixtures/bnb`) and the fast code against `reference.rs`.

use std::collections::HashMap;

use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::*;
use crate::isa::Tier;

const CASES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/bnb/nf4.json"));

struct Fixture {
    header: serde_json::Value,
    data: Vec<u8>,
}

impl Fixture {
    fn load() -> Self {
        let blob =
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/bnb/nf4.safetensors"));
        let size = u64::from_le_bytes(blob[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&blob[8..8 + size]).unwrap();
        Self { header, data: blob[8 + size..].to_vec() }
    }

    fn bytes(&self, name: &str) -> &[u8] {
        let offsets = &self.header[name]["data_offsets"];
        let at = |i: usize| offsets[i].as_u64().unwrap_or_else(|| panic!("no tensor {name}")) as usize;
        &self.data[at(0)..at(1)]
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn round_to(values: &[f32], dtype: &str) -> Vec<f32> {
    match dtype {
        "f32" => values.to_vec(),
        "bf16" => values.iter().map(|&value| bf16::from_f32(value).to_f32()).collect(),
        "f16" => values.iter().map(|&value| f16::from_f32(value).to_f32()).collect(),
        _ => panic!("dtype {dtype}"),
    }
}

fn dequantize_as(matrix: &Nf4, dtype: &str) -> Vec<f32> {
    match dtype {
        "bf16" => matrix.dequantize_bf16().into_iter().map(bf16::to_f32).collect(),
        "f16" => matrix.dequantize_f16().into_iter().map(f16::to_f32).collect(),
        _ => matrix.dequantize(),
    }
}

fn random(len: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-scale..scale)).collect()
}

#[test]
fn every_bitsandbytes_case_is_bit_equal() {
    let fixture = Fixture::load();
    let meta: serde_json::Value = serde_json::from_str(CASES).unwrap();
    let cases: HashMap<String, serde_json::Value> = serde_json::from_value(meta["cases"].clone()).unwrap();
    assert_eq!(cases.len(), 18);
    for (key, case) in cases {
        let dtype = case["dtype"].as_str().unwrap();
        let shape = [0, 1].map(|i| case["shape"][i].as_u64().unwrap() as usize);
        let double = case["double"].as_bool().unwrap();
        let input = round_to(&fixture.f32s(&format!("{}.input", &key[..1])), dtype);
        let matrix = quantize(&input, shape, case["block_size"].as_u64().unwrap() as usize, double);
        matrix.check().unwrap();
        let single = key.replace(".double", ".single");
        assert_eq!(matrix.packed, fixture.bytes(&format!("{single}.packed")), "{key}: packed");
        match &matrix.absmax {
            Absmax::Single(absmax) => {
                assert_eq!(bits(absmax), bits(&fixture.f32s(&format!("{key}.absmax"))), "{key}: absmax");
            }
            Absmax::Double { codes, nested_absmax, offset, map, .. } => {
                let expected = fixture.f32s(&format!("{key}.offset"));
                assert_eq!(bits(&[*offset]), bits(&expected), "{key}: offset");
                assert_eq!(codes, fixture.bytes(&format!("{key}.absmax")), "{key}: codes");
                let expected = fixture.f32s(&format!("{key}.nested_absmax"));
                assert_eq!(bits(nested_absmax), bits(&expected), "{key}: nested absmax");
                assert_eq!(bits(&map[..]), bits(&fixture.f32s("code.dynamic_u8")), "{key}: map");
            }
        }
        let values = dequantize_as(&matrix, dtype);
        if !key.starts_with('A') {
            let expected = fixture.f32s(&format!("{key}.dequant"));
            assert_eq!(bits(&values), bits(&expected), "{key}: dequantized");
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let digest = format!("{:x}", Sha256::digest(&bytes));
        assert_eq!(digest, case["dequant_sha256"].as_str().unwrap(), "{key}: dequantized");
    }
}

#[test]
fn the_code_table_is_that_of_bitsandbytes() {
    assert_eq!(bits(&CODE), bits(&Fixture::load().f32s("code.nf4")));
}

#[test]
fn fast_quantization_equals_the_reference() {
    for (case, (rows, cols)) in
        [(0, 7), (1, 1), (1, 64), (5, 123), (3, 65), (300, 257)].into_iter().enumerate()
    {
        for block_size in [32, 64, 128, 4096] {
            let mut values = random(rows * cols, 3.0e4, case as u64);
            // One value of each kind that arithmetic treats specially.
            for (slot, special) in values.iter_mut().step_by(7).zip([
                0.0,
                -0.0,
                1e-39,
                -1e-45,
                f32::MAX,
                f32::INFINITY,
                f32::NAN,
            ]) {
                *slot = special;
            }
            let (packed, absmax) = reference::quantize(&values, block_size);
            for tier in Tier::available() {
                let at = format!("{rows}x{cols} block {block_size} on {}", tier.name());
                let read = |start: usize, out: &mut [f32]| out.copy_from_slice(&values[start..][..out.len()]);
                let fast = cpu::quantize(tier, values.len(), block_size, read);
                assert_eq!(fast.0, packed, "{at}");
                assert_eq!(bits(&fast.1), bits(&absmax), "{at}");
            }
        }
    }
}

#[test]
fn values_on_and_beside_every_bound_get_the_code_of_the_reference() {
    // With a largest magnitude of 1 the scaled values are the values.
    let beside = BOUNDS.iter().flat_map(|bound| [bound.next_down(), *bound, bound.next_up()]);
    let mut values: Vec<f32> = beside.chain(CODE).chain([1.0; 3]).collect();
    assert_eq!(values.len(), 64);
    values.extend(values.clone().iter().rev());
    let (packed, _) = reference::quantize(&values, 64);
    for tier in Tier::available() {
        let read = |start: usize, out: &mut [f32]| out.copy_from_slice(&values[start..][..out.len()]);
        assert_eq!(cpu::quantize(tier, values.len(), 64, read).0, packed, "on {}", tier.name());
    }
}

#[test]
fn every_range_dequantizes_as_the_reference() {
    let matrix = quantize(&random(5 * 61, 1.0, 9), [5, 61], 64, true);
    let absmax = matrix.absmax_f32();
    let whole = matrix.dequantize();
    for start in 0..whole.len() {
        for len in [0, 1, 2, 3, 63, 64, 65, 130] {
            let len = len.min(whole.len() - start);
            let (mut fast, mut plain) = (vec![0.0; len], vec![0.0; len]);
            matrix.dequantize_range(start, &mut fast, &absmax);
            reference::dequantize_range(&matrix.packed, 64, &absmax, start, &mut plain);
            assert_eq!(bits(&fast), bits(&plain), "{start}..+{len}");
            assert_eq!(bits(&fast), bits(&whole[start..start + len]), "{start}..+{len}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let values = random(700 * 97, 0.1, 3);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let matrix = quantize(&values, [700, 97], 64, true);
            (bits(&matrix.dequantize()), matrix)
        })
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let good = quantize(&random(300, 1.0, 1), [3, 100], 64, true);
    let mut bad = good.clone();
    bad.packed.pop();
    assert_eq!(
        bad.check().unwrap_err().to_string(),
        "nf4 `packed` of a [3, 100] matrix holds 149 entries, expected 150"
    );
    let mut bad = good.clone();
    bad.block_size = 63;
    assert!(matches!(bad.check(), Err(Nf4Error::BlockSize { got: 63 })));
    let mut bad = good.clone();
    bad.shape = [usize::MAX, 2];
    assert!(matches!(bad.check(), Err(Nf4Error::TooLarge { .. })));
    let mut bad = good;
    if let Absmax::Double { nested_absmax, .. } = &mut bad.absmax {
        nested_absmax.push(1.0);
    }
    assert!(matches!(bad.check(), Err(Nf4Error::Length { part: "nested_absmax", expected: 1, got: 2, .. })));
}

#[test]
fn bytes_counts_codes_and_scales() {
    let values = random(64 * 64, 1.0, 1);
    assert_eq!(quantize(&values, [64, 64], 64, false).bytes(), 2048 + 64 * 4);
    assert_eq!(quantize(&values, [64, 64], 64, true).bytes(), 2048 + 64 + 4 + 4);
}
