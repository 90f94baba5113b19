//! Signatures of the Python package model-signing, three curves, both methods, old versions.

use super::*;
use crate::evidence::signing::FormatFault;

fn check(signature: &str, curve: &str) -> Result<Verified, SignatureError> {
    verify(&fixture("folder"), &fixture(signature), Some(&public(curve)), &VerifyOptions::default())
}

#[test]
fn what_the_reference_signs_is_verified() {
    for curve in ["P-256", "P-384", "P-521"] {
        let files = check(&format!("{curve}-files.sig"), curve).unwrap();
        let signer = files.signed_by.unwrap();
        assert_eq!((files.model.as_str(), files.files, files.bytes), ("folder", 5, 95));
        assert_eq!((signer.curve.to_string().as_str(), signer.named), (curve, true));
        let shards = check(&format!("{curve}-shards.sig"), curve).unwrap();
        assert_eq!((shards.files, shards.bytes), (5, 95));
    }
    for old in ["version-0.3.1.sig", "version-1.0.1.sig"] {
        assert!(!check(old, "P-256").unwrap().signed_by.unwrap().named, "{old}");
    }
}

#[test]
fn the_key_of_another_curve_or_signer_is_refused() {
    let error = check("P-256-files.sig", "P-384").unwrap_err();
    assert!(matches!(error, SignatureError::OtherKey { .. }), "{error}");
    // An old signature names no key, so only the signature itself can tell.
    for curve in ["P-384", "P-521"] {
        let error = check("version-1.0.1.sig", curve).unwrap_err();
        let der = matches!(&error, SignatureError::Malformed { fault: FormatFault::Der { .. }, .. });
        assert!(der || matches!(error, SignatureError::Forged { .. }), "{error}");
    }
    let error = check("blake2.sig", "P-256").unwrap_err().to_string();
    assert!(error.ends_with("the serialization `hash_type` is `blake2b`, supported is `sha256`"), "{error}");
}

#[test]
fn a_changed_file_is_found_in_files_and_in_shards() {
    let stage = Stage::new(&[]);
    let copy = || {
        for name in ["adapter_config.json", "adapter_model.safetensors", "a-b/c.txt", "a/b.txt"] {
            stage.write(name, &fs_err::read(fixture("folder").join(name)).unwrap());
        }
        stage.write("sub/deep/exactly-two-shards.bin", &[0; 32]);
    };
    let found = |signature: &str| -> Vec<String> {
        let path = fixture(signature);
        let error = verify(&stage.folder(), &path, Some(&public("P-521")), &VerifyOptions::default());
        error.unwrap_err().findings().iter().map(ToString::to_string).collect()
    };
    copy();
    stage.write("sub/deep/exactly-two-shards.bin", &[[0; 31].as_slice(), &[1]].concat());
    let files = found("P-521-files.sig");
    assert!(
        files[0].starts_with("`sub/deep/exactly-two-shards.bin` was changed: its sha256 is "),
        "{files:?}"
    );
    let shards = found("P-521-shards.sig");
    assert!(shards[0].contains("` was changed in bytes 16 to 32: their sha256 is "), "{shards:?}");
    assert_eq!((files.len(), shards.len()), (1, 1));

    copy();
    stage.write("adapter_model.safetensors", &[0; 51]);
    fs_err::remove_file(stage.path("a/b.txt")).unwrap();
    stage.write("b", b"!");
    let shards = found("P-521-shards.sig");
    let expected = [
        "`a/b.txt` is missing",
        "`adapter_model.safetensors` was changed: it has 51 bytes, signed are 50",
        "`b` is not signed",
    ];
    assert_eq!(shards, expected);
    // A shard cannot list an empty file, so one may be there.
    stage.write("b", b"");
    assert_eq!(found("P-521-shards.sig"), expected[..2]);
    assert_eq!(found("P-521-files.sig").len(), 3);
}
