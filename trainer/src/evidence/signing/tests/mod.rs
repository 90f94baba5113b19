//! A signature says exactly one thing about a folder, and nothing that a stranger writes makes us fail otherwise.

mod folder;
mod hostile;
mod interoperation;
mod tampering;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{
    Fault, Finding, PrivateKey, PublicKey, SignOptions, SignatureError, Signed, Verified, VerifyOptions,
    sign, signature_of, verify,
};

/// Signed by the Python package model-signing; see `scripts/reference/make_signatures.py`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/signing").join(name)
}

fn private(curve: &str) -> PrivateKey {
    PrivateKey::read(&fixture(&format!("{curve}.pem"))).unwrap()
}

fn public(curve: &str) -> PublicKey {
    PublicKey::read(&fixture(&format!("{curve}.pub.pem"))).unwrap()
}

/// A folder to sign, in a folder of its own.
struct Stage(TempDir);

impl Stage {
    /// Writes files by name.
    fn new(files: &[(&str, &[u8])]) -> Stage {
        let stage = Stage(tempfile::tempdir().unwrap());
        fs_err::create_dir(stage.folder()).unwrap();
        for (name, content) in files {
            stage.write(name, content);
        }
        stage
    }

    fn small() -> Stage {
        Stage::new(&[("a.json", b"{\"rank\": 2}"), ("empty", b""), ("sub/w.bin", &[7; 40]), ("sub/x", b"x")])
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("model")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs_err::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs_err::write(self.path(name), content).unwrap();
    }

    fn sign(&self, options: &SignOptions) -> Result<Signed, SignatureError> {
        sign(&self.folder(), &private("P-256"), options)
    }

    fn signed(self) -> Stage {
        self.sign(&SignOptions::default()).unwrap();
        self
    }

    fn verify(&self) -> Result<Verified, SignatureError> {
        self.verify_with(&VerifyOptions::default())
    }

    fn verify_with(&self, options: &VerifyOptions) -> Result<Verified, SignatureError> {
        verify(&self.folder(), &signature_of(&self.folder()), Some(&public("P-256")), options)
    }

    /// The names and faults that verification finds.
    fn found(&self) -> Vec<(String, Fault)> {
        match self.verify() {
            Ok(_) => Vec::new(),
            Err(error @ SignatureError::Mismatch { .. }) => {
                error.findings().iter().map(|Finding { name, fault }| (name.clone(), fault.clone())).collect()
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The names of what verification finds.
    fn found_names(&self) -> Vec<String> {
        self.found().into_iter().map(|(name, _)| name).collect()
    }
}

#[test]
fn keys_load_in_both_encodings_and_match_their_public_halves() {
    // P-384 is PKCS#8, the others are SEC1 after a block of parameters.
    for curve in ["P-256", "P-384", "P-521"] {
        let (private, public) = (private(curve), public(curve));
        assert_eq!(private.public(), public);
        assert_eq!(public.curve().to_string(), curve);
        assert_eq!(public.to_pem(), fs_err::read_to_string(fixture(&format!("{curve}.pub.pem"))).unwrap());
        let windows = public.to_pem().replace('\n', "\r\n");
        assert_eq!(PublicKey::from_pem(&format!("comment\r\n{windows}")), Ok(public.clone()));
        let signature = private.sign(b"seed").unwrap();
        assert_eq!(signature, private.sign(b"seed").unwrap());
        assert_eq!(public.verifies(b"seed", &signature), Some(true));
        assert_eq!(public.verifies(b"corn", &signature), Some(false));
        assert_eq!(public.verifies(b"seed", &signature[1..]), None);
    }
}

#[test]
fn other_files_are_no_keys() {
    use super::KeyFault;
    let block = |label: &str, text: &str| format!("-----BEGIN {label}-----\n{text}-----END {label}-----\n");
    let private = |text: &str| PrivateKey::from_pem(text).unwrap_err();
    let public = |text: &str| PublicKey::from_pem(text).unwrap_err();
    for text in ["", "key", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----\n", "-----BEGIN \u{1f511}-----"] {
        assert_eq!((private(text), public(text)), (KeyFault::NoPem, KeyFault::NoPem), "{text}");
    }
    for text in ["", "AAAA\n", "!\n", "MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDDuX2eJG\n"] {
        assert_eq!(private(&block("PRIVATE KEY", text)), KeyFault::Curve);
        assert_eq!(private(&block("EC PRIVATE KEY", text)), KeyFault::Curve);
        assert_eq!(public(&block("PUBLIC KEY", text)), KeyFault::Curve);
    }
    // Made with `openssl genpkey -algorithm ed25519`.
    let other = "MC4CAQAwBQYDK2VwBCIEIMhPrDPFKzlgbTCGxnAmpLFdnDDRNbxY7wLpnwnpB/mH\n";
    assert_eq!(private(&block("PRIVATE KEY", other)), KeyFault::Curve);
    assert_eq!(private(&block("ENCRYPTED PRIVATE KEY", "")), KeyFault::Encrypted);
    assert_eq!(private(&block("EC PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\n\nAAAA\n")), KeyFault::Encrypted);
    assert_eq!(private(&block("PUBLIC KEY", "")), KeyFault::Public);
    assert_eq!(public(&block("EC PRIVATE KEY", "")), KeyFault::Private);
    let certificate = KeyFault::Label { label: "CERTIFICATE".to_owned() };
    assert_eq!(public(&block("CERTIFICATE", "")), certificate);
    assert_eq!(private(&block("CERTIFICATE", "")), certificate);
}
