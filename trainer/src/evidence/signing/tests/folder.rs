//! Which files of a folder a signature covers.

use sha2::{Digest, Sha256};

use super::*;
use crate::evidence::signing::bundle;

/// The signed statement, not verified.
fn statement(stage: &Stage) -> serde_json::Value {
    let envelope = bundle::read(&fs_err::read(signature_of(&stage.folder())).unwrap()).unwrap();
    serde_json::from_slice(&envelope.payload).unwrap()
}

fn names(stage: &Stage) -> Vec<String> {
    let statement = statement(stage);
    let resources = statement["predicate"]["resources"].as_array().unwrap().iter();
    resources.map(|resource| resource["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_statement_is_what_the_format_says() {
    let stage = Stage::new(&[("b", b"two"), ("a", b"one")]).signed();
    let hex = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
    let root = hex(&[Sha256::digest(b"one"), Sha256::digest(b"two")].concat());
    let resource = |name: &str, content: &[u8]| serde_json::json!({ "name": name, "algorithm": "sha256", "digest": hex(content) });
    let expected = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "model", "digest": { "sha256": root } }],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": false,
                "ignore_paths": [".git", ".gitattributes", ".github", ".gitignore", "model.sig"],
            },
            "resources": [resource("a", b"one"), resource("b", b"two")],
        },
    });
    assert_eq!(statement(&stage), expected);
    assert_eq!(bundle::pre_authentication_encoding(b"{}"), b"DSSEv1 28 application/vnd.in-toto+json 2 {}");
    let text = fs_err::read(signature_of(&stage.folder())).unwrap();
    let bundle: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let material =
        serde_json::json!({ "publicKey": { "hint": public("P-256").fingerprint() }, "tlogEntries": [] });
    assert_eq!(bundle["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(bundle["verificationMaterial"], material);
    assert_eq!(bundle["dsseEnvelope"]["payloadType"], "application/vnd.in-toto+json");
    assert_eq!(bundle["dsseEnvelope"]["signatures"][0]["keyid"], "");
}

#[test]
fn names_are_in_the_order_of_code_points() {
    // Neither the order of paths (`a/b` before `a-b`) nor that of UTF-16.
    let order = ["A", "a-b/c", "a/b", "ab", "\u{e9}", "\u{ff61}", "\u{1f600}"];
    let mut files: Vec<(&str, &[u8])> = order.iter().map(|name| (*name, name.as_bytes())).collect();
    files.reverse();
    let stage = Stage::new(&files).signed();
    assert_eq!(names(&stage), order);
    assert_eq!(stage.verify().unwrap().files, order.len());
}

#[test]
fn the_files_of_git_are_left_out_at_the_top_only() {
    let stage = Stage::new(&[
        (".gitattributes", b"1"),
        (".git/config", b"2"),
        (".github/x/y", b"3"),
        (".gitmodules", b"4"),
        ("sub/.gitignore", b"5"),
        (".hidden", b"6"),
    ]);
    let signed = stage.sign(&SignOptions::default()).unwrap();
    assert_eq!(signed.ignored, [".git", ".gitattributes", ".github"]);
    assert_eq!(names(&stage), [".gitmodules", ".hidden", "sub/.gitignore"]);
    stage.write(".git/config", b"!");
    stage.write(".gitignore", b"!");
    assert_eq!(stage.verify().unwrap().ignored, [".git", ".gitattributes", ".github", ".gitignore"]);
    stage.write("sub/.gitignore", b"!");
    assert_eq!(stage.found_names(), ["sub/.gitignore"]);
}

#[test]
fn ignored_paths_are_recorded_and_hold() {
    let stage = Stage::small();
    stage.write("sub/logs/1", b"log");
    stage.write("sub/logs-2", b"not a log");
    let absolute = stage.path("empty");
    let options = SignOptions { ignore: vec!["sub/logs/".into(), absolute], ..SignOptions::default() };
    let signed = stage.sign(&options).unwrap();
    assert_eq!(signed.ignored, ["empty", "sub/logs"]);
    assert_eq!(names(&stage), ["a.json", "sub/logs-2", "sub/w.bin", "sub/x"]);
    stage.write("sub/logs/2", b"log");
    assert_eq!(stage.verify().unwrap().ignored, ["empty", "sub/logs"]);
    stage.write("sub/logs-2", b"");
    stage.write("sub/logs-3", b"");
    assert_eq!(stage.found_names(), ["sub/logs-2", "sub/logs-3"]);
    for path in ["nothing", "..", "../model/../../etc", "/etc"] {
        let options = SignOptions { ignore: vec![path.into()], ..SignOptions::default() };
        assert!(matches!(stage.sign(&options), Err(SignatureError::IgnoredNothing { .. })), "{path}");
    }
}

#[test]
fn a_signature_may_be_elsewhere() {
    let stage = Stage::small();
    let path = stage.0.path().join("elsewhere.sig");
    stage.sign(&SignOptions { signature: Some(path.clone()), ..SignOptions::default() }).unwrap();
    let verified = verify(&stage.folder(), &path, Some(&public("P-256")), &VerifyOptions::default()).unwrap();
    assert!(verified.ignored.is_empty());
    // Without a key only the files are compared.
    let unsigned = verify(&stage.folder(), &path, None, &VerifyOptions::default()).unwrap();
    assert_eq!((unsigned.signed_by, unsigned.root), (None, verified.root));
    assert!(matches!(stage.verify(), Err(SignatureError::NoSignature { .. })));
    let nowhere = stage.0.path().join("no/such.sig");
    let failed = stage.sign(&SignOptions { signature: Some(nowhere), ..SignOptions::default() });
    assert!(matches!(failed, Err(SignatureError::Write { .. })));
}

#[test]
fn the_name_of_the_folder_does_not_count() {
    let stage = Stage::small().signed();
    let moved = stage.0.path().join("moved");
    fs_err::rename(stage.folder(), &moved).unwrap();
    let verified = verify(&moved, &signature_of(&moved), Some(&public("P-256")), &VerifyOptions::default());
    assert_eq!(verified.unwrap().model, "model");
}

#[test]
fn the_signature_is_the_same_for_any_number_of_threads() {
    let files: Vec<(String, Vec<u8>)> =
        (0..40_u8).map(|index| (format!("f{index}"), vec![index; usize::from(index) * 100])).collect();
    let stage = Stage::new(&[]);
    for (name, content) in &files {
        stage.write(name, content);
    }
    let signature = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| stage.sign(&SignOptions::default()).unwrap());
        fs_err::read(signature_of(&stage.folder())).unwrap()
    };
    let one = signature(1);
    assert_eq!((one.clone(), one), (signature(2), signature(5)));
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    const LINKS: bool = true;

    fn faults(error: &SignatureError) -> Vec<(&str, &Fault)> {
        error.findings().iter().map(|finding| (finding.name.as_str(), &finding.fault)).collect()
    }

    #[test]
    fn links_to_files_are_signed_as_what_they_point_at() {
        let stage = Stage::small();
        fs_err::write(stage.0.path().join("outside"), b"outside").unwrap();
        symlink("../../outside", stage.path("sub/link")).unwrap();
        symlink("sub/x", stage.path("inside")).unwrap();
        let refused = stage.sign(&SignOptions::default()).unwrap_err();
        assert_eq!(faults(&refused), [("inside", &Fault::Link), ("sub/link", &Fault::Link)]);
        let options = SignOptions { allow_symlinks: LINKS, ..SignOptions::default() };
        assert_eq!(stage.sign(&options).unwrap().outside, ["sub/link"]);
        assert_eq!(names(&stage), ["a.json", "empty", "inside", "sub/link", "sub/w.bin", "sub/x"]);
        assert_eq!(stage.verify().unwrap().files, 6);
        fs_err::write(stage.0.path().join("outside"), b"changed").unwrap();
        assert_eq!(stage.found_names(), ["sub/link"]);
    }

    #[test]
    fn what_no_signature_can_cover_is_refused() {
        let stage = Stage::small();
        symlink("sub", stage.path("folder")).unwrap();
        symlink("..", stage.path("sub/circle")).unwrap();
        symlink("nothing", stage.path("broken")).unwrap();
        symlink("self", stage.path("self")).unwrap();
        symlink("/dev/null", stage.path("device")).unwrap();
        let options = SignOptions { allow_symlinks: LINKS, ..SignOptions::default() };
        let refused = stage.sign(&options).unwrap_err();
        let expected = [
            ("broken", &Fault::BrokenLink),
            ("device", &Fault::Special),
            ("folder", &Fault::LinkedFolder),
            ("self", &Fault::BrokenLink),
            ("sub/circle", &Fault::LinkedFolder),
        ];
        assert_eq!(faults(&refused), expected);
        // What is ignored is not looked at.
        let ignore = expected.map(|(name, _)| name.into()).into();
        let signed = stage.sign(&SignOptions { ignore, ..SignOptions::default() }).unwrap();
        assert_eq!((signed.files, signed.ignored.len()), (4, 5));
    }

    #[test]
    fn pipes_and_names_that_are_no_text_are_found() {
        let stage = Stage::small().signed();
        let status = std::process::Command::new("mkfifo").arg(stage.path("pipe")).status().unwrap();
        assert!(status.success());
        fs_err::write(stage.folder().join(OsStr::from_bytes(b"\xff")), b"").unwrap();
        let expected = [("pipe".to_owned(), Fault::Special), ("\u{fffd}".to_owned(), Fault::NotUtf8)];
        assert_eq!(stage.found(), expected);
        let refused = stage.sign(&SignOptions::default()).unwrap_err();
        assert_eq!(refused.findings().len(), 2);
        let pipe = verify(&stage.folder(), &stage.path("pipe"), None, &VerifyOptions::default());
        assert!(matches!(pipe, Err(SignatureError::Read { .. })));
    }

    #[test]
    fn a_folder_may_be_reached_through_a_link() {
        let stage = Stage::small().signed();
        let latest = stage.0.path().join("latest");
        symlink("model", &latest).unwrap();
        let verified =
            verify(&latest, &signature_of(&latest), Some(&public("P-256")), &VerifyOptions::default());
        assert!(verified.unwrap().ignored.is_empty());
    }

    #[test]
    fn names_are_shown_without_control_characters() {
        let stage = Stage::small().signed();
        stage.write("\u{1b}[2Jgone\n", b"");
        let message = stage.verify().unwrap_err().to_string();
        assert!(message.contains("`\\u{1b}[2Jgone\\n` is not signed"), "{message}");
    }
}
