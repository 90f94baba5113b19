//! Hostile headers, each with its message, and arbitrary bytes.

use proptest::prelude::*;

use super::*;

fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data_bytes, 7);
    file
}

fn message(file: &[u8]) -> String {
    Header::parse(file).unwrap_err().to_string()
}

fn tensor(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

fn valid() -> Vec<u8> {
    let tensors = [
        tensor("b", "BF16", "[2,3]", 0, 12),
        tensor("a", "F32", "[]", 12, 16),
        tensor("c", "U8", "[0,4]", 16, 16),
    ];
    file(&format!(r#"{{"__metadata__":{{"format":"pt"}},{}}}   "#, tensors.join(",")), 16)
}

#[test]
fn a_valid_header_gives_names_shapes_and_ranges() {
    let file = valid();
    let header = Header::parse(&file).unwrap();
    assert_eq!(header.tensors.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    let start = file.len() - 16;
    let entry = |dtype, shape: &[usize], range| Entry { dtype, shape: shape.to_vec(), range };
    assert_eq!(header.tensors["b"], entry(ElementType::BF16, &[2, 3], start..start + 12));
    assert_eq!(header.tensors["a"], entry(ElementType::F32, &[], start + 12..start + 16));
    assert_eq!(header.tensors["c"], entry(ElementType::U8, &[0, 4], start + 16..start + 16));
}

#[test]
fn every_element_type_has_its_own_row() {
    for row in ElementType::ALL {
        assert_eq!(ElementType::from_name(row.0.name()), Some(row.0));
        assert_eq!((row.0.name(), row.0.bytes()), (row.1, row.2));
    }
}

#[test]
fn truncated_files() {
    assert_eq!(message(&[1, 2]), "file ends inside the header length: expected 8 bytes, got 2");
    let whole = valid();
    assert_eq!(
        message(&whole[..20]),
        format!("file ends inside the header: expected {} bytes, got 20", whole.len() - 16)
    );
    assert_eq!(message(&whole[..whole.len() - 3]), "file ends early: tensors take 16 bytes, got 13");
    let mut longer = whole;
    longer.push(0);
    assert_eq!(message(&longer), "1 bytes follow the last tensor, expected none");
}

#[test]
fn oversized_headers() {
    let mut file = u64::MAX.to_le_bytes().to_vec();
    file.extend(b"{}");
    assert_eq!(
        message(&file),
        "header of 18446744073709551615 bytes is longer than the limit of 100000000 bytes"
    );
    file[..8].copy_from_slice(&3_u64.to_le_bytes());
    assert_eq!(message(&file), "file ends inside the header: expected 11 bytes, got 10");
}

#[test]
fn headers_that_are_not_text_or_json() {
    assert_eq!(message(&[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]), "header is not valid UTF-8");
    for header in ["[]", "{", "", r#"{"a":1}"#, r#"{"__metadata__":{"a":1}}"#, r#"{"a":{"dtype":"F32"}}"#] {
        assert_eq!(message(&file(header, 0)), "header is not a valid JSON object of tensors", "{header}");
    }
    let negative = r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#;
    assert!(matches!(Header::parse(&file(negative, 4)), Err(SafetensorsError::Json(_))));
}

#[test]
fn layouts_that_do_not_fit() {
    let two = |first: String, second: String, bytes| message(&file(&format!("{{{first},{second}}}"), bytes));
    assert_eq!(
        two(tensor("a", "F32", "[2]", 0, 8), tensor("b", "F32", "[2]", 4, 12), 12),
        "tensor `b` begins at byte 4 inside tensor `a`, which ends at byte 8"
    );
    assert_eq!(
        two(tensor("a", "F32", "[1]", 0, 4), tensor("b", "F32", "[1]", 8, 12), 12),
        "tensor `b` begins at byte 8, expected 4: there is a hole in the data"
    );
    let twice = "tensor `a` appears twice in the header";
    assert_eq!(two(tensor("a", "F32", "[1]", 0, 4), tensor("a", "F32", "[1]", 4, 8), 8), twice);
    assert_eq!(two(tensor("a", "F32", "[1]", 0, 4), tensor("a", "F32", "[1]", 0, 4), 4), twice);
    let one = |tensor: String| message(&file(&format!("{{{tensor}}}"), 8));
    assert_eq!(
        one(tensor("a", "F32", "[3]", 0, 8)),
        "tensor `a` of shape [3] and type F32 takes 12 bytes, but its offsets 0 to 8 give 8"
    );
    assert_eq!(
        one(tensor("a", "F32", "[2]", 8, 0)),
        "tensor `a` of shape [2] and type F32 takes 8 bytes, but its offsets 8 to 0 give -8"
    );
    assert_eq!(
        one(tensor("a", "F32", "[4294967296,4294967296]", 0, 8)),
        "tensor `a` of shape [4294967296, 4294967296] is too large"
    );
    assert_eq!(one(tensor("a", "Q9", "[2]", 0, 8)), "tensor `a` has the unknown type `Q9`");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50_000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(length in 0_u64..80, header in ".{0,60}", data in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        let _ = Header::parse(&bytes);
    }

    #[test]
    fn mutated_files_are_refused_or_stay_inside(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut bytes = valid();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(header) = Header::parse(&bytes) {
            for entry in header.tensors.values() {
                prop_assert!(entry.range.start <= entry.range.end && entry.range.end <= bytes.len());
                let values: usize = entry.shape.iter().product();
                prop_assert_eq!(values as u64 * entry.dtype.bytes(), entry.range.len() as u64);
            }
        }
    }
}
