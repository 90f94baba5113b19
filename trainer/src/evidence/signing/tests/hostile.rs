//! Signature files that a stranger wrote, with a valid signature over whatever they say.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::evidence::signing::bundle::{self, Envelope};
use crate::evidence::signing::{Digest, statement};

/// The statement of `{"a": "one", "b": "two"}`.
fn statement_of_two() -> Value {
    let resource = |name: &str, content: &[u8]| json!({ "name": name, "algorithm": "sha256", "digest": Digest::of(content).to_string() });
    let mut statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "x", "digest": { "sha256": "" } }],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": { "method": "files", "hash_type": "sha256", "allow_symlinks": false },
            "resources": [resource("a", b"one"), resource("b", b"two")],
        },
    });
    set_root(&mut statement);
    statement
}

/// Makes the root digest that of the resources.
fn set_root(statement: &mut Value) {
    let resources = statement["predicate"]["resources"].as_array().cloned().unwrap_or_default();
    let digests: Vec<Digest> = resources
        .iter()
        .filter_map(|resource| resource["digest"].as_str().and_then(Digest::from_hex))
        .collect();
    statement["subject"][0]["digest"]["sha256"] = Digest::root(digests.iter()).to_string().into();
}

/// A bundle with a valid signature over a payload.
fn seal(payload: &[u8]) -> Value {
    let key = private("P-256");
    let signature = key.sign(&bundle::pre_authentication_encoding(payload)).unwrap();
    let envelope = Envelope { payload: payload.to_vec(), signature, hint: Some(key.public().fingerprint()) };
    serde_json::from_slice(&bundle::write(&envelope).unwrap()).unwrap()
}

fn check(bundle: &[u8]) -> Result<Verified, SignatureError> {
    let stage = Stage::new(&[("a", b"one"), ("b", b"two"), ("model.sig", bundle)]);
    stage.verify()
}

fn message(bundle: &Value) -> String {
    match check(bundle.to_string().as_bytes()) {
        Ok(_) => "good".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn statements() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (|_| {}, "good"),
        // Fields that later versions may add.
        (|s| s["predicate"]["annotations"] = json!({ "base_model": "x" }), "good"),
        (|s| s["predicate"]["resources"][0]["size"] = json!(3), "good"),
        (
            |s| s["_type"] = json!("https://in-toto.io/Statement/v0.1"),
            "`_type` is `https://in-toto.io/Statement/v0.1`",
        ),
        (|s| s["_type"] = json!(null), "invalid type: null"),
        (
            |s| s["predicateType"] = json!("https://slsa.dev/provenance/v1"),
            "`predicateType` is `https://slsa.dev",
        ),
        (|s| s["predicateType"] = json!("https://model_signing/Digests/v0.1"), "`predicateType` is `"),
        (|s| *s = json!([]), "its statement is not as the format says"),
        (|s| s["subject"] = json!([]), "it has 0 subjects, expected 1"),
        (|s| s["subject"] = json!([s["subject"][0], s["subject"][0]]), "it has 2 subjects, expected 1"),
        (|s| s["subject"][0]["digest"] = json!({}), "missing field `sha256`"),
        (
            |s| s["subject"][0]["digest"]["sha256"] = json!("00"),
            "`subject.digest.sha256` is `00`, not a sha256",
        ),
        (|s| s["subject"][0]["digest"]["sha256"] = json!("0".repeat(64)), "its files have the root digest"),
        (|s| drop(s.as_object_mut().unwrap().remove("predicate")), "missing field `predicate`"),
        (|s| s["predicate"]["serialization"] = json!(7), "invalid type: integer `7`"),
        (
            |s| s["predicate"]["serialization"]["allow_symlinks"] = json!("false"),
            "invalid type: string \"false\"",
        ),
        (|s| s["predicate"]["serialization"]["ignore_paths"] = json!("x"), "invalid type: string \"x\""),
        (|s| s["predicate"]["serialization"]["ignore_paths"] = json!(["./"]), "it ignores the whole folder"),
        // Outside of the folder there is nothing to leave out, and listed files are verified everywhere.
        (|s| s["predicate"]["serialization"]["ignore_paths"] = json!(["/", "../x", "a"]), "good"),
        (|s| s["predicate"]["serialization"]["hash_type"] = json!("blake3"), "`hash_type` is `blake3`"),
        (|s| s["predicate"]["serialization"]["method"] = json!("tensors"), "`method` is `tensors`"),
        (|s| s["predicate"]["serialization"]["method"] = json!("shards"), "`shard_size` nothing is missing"),
        (|s| s["predicate"]["resources"] = json!({}), "invalid type: map"),
        (
            |s| {
                s["predicate"]["resources"] = json!([]);
                set_root(s);
            },
            "it lists no file",
        ),
        (
            |s| drop(s["predicate"]["resources"][1].as_object_mut().unwrap().remove("digest")),
            "missing field `digest`",
        ),
        (|s| s["predicate"]["resources"][1]["digest"] = json!("+f".repeat(32)), "not a sha256"),
        (|s| s["predicate"]["resources"][1]["digest"] = json!("a".repeat(1 << 20)), "aaa...`, not a sha256"),
        (|s| s["predicate"]["resources"][1]["algorithm"] = json!("sha512"), "`algorithm` is `sha512`"),
        (|s| s["predicate"]["resources"][1]["name"] = json!("a"), "it lists `a` twice"),
        (|s| s["predicate"]["resources"][1]["name"] = json!("b/c"), "`b/c` is missing"),
        (|s| s["predicate"]["resources"][1]["name"] = json!(1), "invalid type: integer `1`"),
    ];
    for (change, expected) in cases {
        let mut statement = statement_of_two();
        change(&mut statement);
        let found = message(&seal(statement.to_string().as_bytes()));
        assert!(found.contains(expected), "expected: {expected}\nfound: {found}");
    }
}

#[test]
fn names_that_are_no_files_of_the_folder() {
    for name in
        ["", "/", "/etc/passwd", "..", "../a", "a/../b", "./a", "a/", "a//b", "a/.", "a\0b", ".", "\u{1b}/.."]
    {
        let mut statement = statement_of_two();
        statement["predicate"]["resources"][1]["name"] = name.into();
        let found = message(&seal(statement.to_string().as_bytes()));
        let expected = format!("`{}` is not the name of a file in the folder", name.escape_debug());
        assert!(found.ends_with(&expected), "{found}");
    }
}

#[test]
fn shards() {
    let check = |size: Value, names: &[&str]| {
        let mut statement = statement_of_two();
        statement["predicate"]["serialization"]["method"] = "shards".into();
        let algorithm = format!("sha256-sharded-{}", size.as_f64().unwrap_or_default());
        statement["predicate"]["serialization"]["shard_size"] = size;
        let digest = Digest::of(b"o").to_string();
        statement["predicate"]["resources"] = names
            .iter()
            .map(|name| json!({ "name": name, "algorithm": algorithm, "digest": digest }))
            .collect();
        set_root(&mut statement);
        message(&seal(statement.to_string().as_bytes()))
    };
    for size in [json!(0), json!(-1), json!(1.5), json!(1e300), json!("4"), json!(null), json!([])] {
        let found = check(size.clone(), &["a:0:1"]);
        assert!(found.contains("is missing or not a positive integer"), "{size}: {found}");
    }
    for name in ["a", "a:1", ":0", "a::1", "a:0:x", "a:0:-1", "a: 0:1", "a:+0:1", "a:0:99999999999999999999"]
    {
        let found = check(json!(4), &[name]);
        assert!(found.contains("is not the name of a file in the folder"), "{name}: {found}");
    }
    let parts: [&[&str]; 7] = [
        &["a:1:3"],
        &["a:0:0"],
        &["a:0:5"],
        &["a:3:0"],
        &["a:0:4", "a:0:4"],
        &["a:0:2", "a:2:4"],
        &["a:0:4", "a:8:9"],
    ];
    for parts in parts {
        let found = check(json!(4.0), parts);
        assert!(
            found.contains("the parts of `a` are not those of a file cut every 4 bytes"),
            "{parts:?}: {found}"
        );
    }
    // Any order will do; a colon may be part of a path.
    let found = check(json!(2), &["a:2:3", "a:0:2", "x:y:0:1"]);
    assert!(found.contains("`a` was changed in bytes 0 to 2"), "{found}");
    assert!(found.contains("`x:y` is missing") && found.contains("`b` is not signed"), "{found}");
}

#[test]
fn bundles() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (|b| b["dsseEnvelope"]["signatures"][0]["keyid"] = json!(null), "good"),
        (|b| b["dsseEnvelope"]["signatures"][0]["keyid"] = json!("any"), "good"),
        (|b| drop(b["dsseEnvelope"]["signatures"][0].as_object_mut().unwrap().remove("keyid")), "good"),
        (|b| b["verificationMaterial"] = json!({ "publicKey": {} }), "good"),
        (|b| b["verificationMaterial"] = json!({ "publicKey": { "hint": "" } }), "good"),
        (
            |b| b["verificationMaterial"] = json!({ "publicKey": { "rawBytes": "AA==", "keyDetails": "X" } }),
            "good",
        ),
        (|b| b["verificationMaterial"]["publicKey"]["hint"] = json!("00"), "it names 00, the given key is "),
        (|b| b["verificationMaterial"]["publicKey"]["hint"] = json!(1), "invalid type: integer `1`"),
        (|b| b["verificationMaterial"] = json!({}), "made with an unknown method"),
        (|b| b["verificationMaterial"] = json!({ "certificate": {} }), "made with a certificate"),
        (|b| b["verificationMaterial"]["x509CertificateChain"] = json!({}), "made with a certificate"),
        (|b| b["verificationMaterial"]["tlogEntries"] = json!([{}]), "made with a transparency log"),
        (
            |b| b["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.1"),
            "`mediaType` is `",
        ),
        (
            |b| b["dsseEnvelope"]["payloadType"] = json!("text/plain"),
            "`payloadType` is `text/plain`, expected `",
        ),
        (|b| b["dsseEnvelope"]["payload"] = json!("e30"), "`payload` is not base64"),
        (|b| b["dsseEnvelope"]["payload"] = json!("\u{1f511}"), "`payload` is not base64"),
        (|b| b["dsseEnvelope"]["payload"] = json!(""), "its content was changed"),
        (|b| b["dsseEnvelope"]["signatures"] = json!([]), "it has 0 signatures, expected 1"),
        (
            |b| {
                let first = b["dsseEnvelope"]["signatures"][0].clone();
                b["dsseEnvelope"]["signatures"] = json!([first, first]);
            },
            "it has 2 signatures, expected 1",
        ),
        (|b| b["dsseEnvelope"]["signatures"][0]["sig"] = json!(""), "`sig` is not an ECDSA signature"),
        (|b| b["dsseEnvelope"]["signatures"][0]["sig"] = json!("AAAA"), "`sig` is not an ECDSA signature"),
        // Zeros and ones; one with a byte after its end.
        (|b| b["dsseEnvelope"]["signatures"][0]["sig"] = json!("MAYCAQACAQA="), "its content was changed"),
        (
            |b| b["dsseEnvelope"]["signatures"][0]["sig"] = json!("MAYCAQECAQEA"),
            "`sig` is not an ECDSA signature",
        ),
        (|b| b["dsseEnvelope"]["signatures"][0]["sig"] = json!("MAYCAQECAQE="), "its content was changed"),
        (|b| b["more"] = json!(1), "unknown field `more`"),
        (|b| *b = json!("x"), "its bundle is not as the format says"),
    ];
    for (change, expected) in cases {
        let mut bundle = seal(statement_of_two().to_string().as_bytes());
        change(&mut bundle);
        let found = message(&bundle);
        assert!(found.contains(expected), "expected: {expected}\nfound: {found}");
    }
}

#[test]
fn payloads_that_are_no_statement() {
    let nested = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let twice = statement_of_two().to_string().replacen('{', "{\"_type\":\"\",", 1);
    for payload in [b"".as_slice(), b"null", b"\xff\xfe", b"{", nested.as_slice(), twice.as_bytes()] {
        let found = message(&seal(payload));
        assert!(found.contains("its statement is not as the format says"), "{found}");
    }
    for bundle in [b"".as_slice(), b"\0", b"{\"mediaType\":", nested.as_slice()] {
        let found = check(bundle).unwrap_err().to_string();
        assert!(found.contains("its bundle is not as the format says"), "{found}");
    }
}

#[test]
fn a_huge_signature_is_refused_unread() {
    let stage = Stage::small();
    let file = fs_err::File::create(signature_of(&stage.folder())).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = stage.verify().unwrap_err();
    assert!(matches!(error, SignatureError::TooLarge { bytes, .. } if bytes == 1 << 40), "{error}");
}

#[test]
fn a_folder_in_the_place_of_the_signature() {
    let stage = Stage::small();
    fs_err::create_dir(signature_of(&stage.folder())).unwrap();
    assert!(matches!(stage.verify(), Err(SignatureError::Read { .. })));
    assert!(matches!(stage.sign(&SignOptions::default()), Err(SignatureError::InTheWay { .. })));
}

proptest! {
    /// Whatever is read, the answer is a value or a fault.
    #[test]
    fn no_bytes_make_the_readers_panic(cut in 0..900_usize, noise in proptest::collection::vec(any::<u8>(), 0..8)) {
        let statement = statement_of_two().to_string();
        let at = cut.min(statement.len());
        let payload = [&statement.as_bytes()[..at], &noise, &statement.as_bytes()[(at + noise.len()).min(statement.len())..]].concat();
        let _ = statement::read(&payload);
        let _ = bundle::read(&payload);
        let _ = bundle::read(&noise);
        let _ = statement::read(&noise);
    }
}
