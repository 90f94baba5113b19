//! ECDSA keys on P-256, P-384 and P-521, as `openssl` writes them.
//!
//! A private key is PEM, in PKCS#8 (`PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`); a public key is a PEM
//! `SubjectPublicKeyInfo` (`PUBLIC KEY`). Signatures are in DER over SHA-256, SHA-384 and SHA-512 in the order of the
//! curves, and deterministic (RFC 6979): the same key over the same content gives the same bytes.

use std::fmt;
use std::path::Path;

use p256::ecdsa::signature::{Signer, Verifier};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, LineEnding};

use super::digest::Digest;
use super::error::{SignatureError, shown};
use super::pem::{Block, read_text};

/// A curve that the format allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256, `prime256v1`.
    P256,
    /// NIST P-384, `secp384r1`.
    P384,
    /// NIST P-521, `secp521r1`.
    P521,
}

impl fmt::Display for Curve {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        })
    }
}

/// Why a file is no usable key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Text without a PEM block, or no text.
    #[error("holds no PEM block")]
    NoPem,
    /// A file that is far too large for a key.
    #[error("is larger than any key")]
    TooLarge,
    /// A public key where a private one is needed.
    #[error("holds a public key, but signing needs the private one")]
    Public,
    /// A private key where a public one is needed.
    #[error("holds a private key, but verifying needs the public one")]
    Private,
    /// A private key that needs a password.
    #[error("holds an encrypted private key")]
    Encrypted,
    /// Another kind of PEM block.
    #[error("holds a `{}`, not a key", shown(label))]
    Label {
        /// What the block says it is.
        label: String,
    },
    /// A damaged key, another curve, another algorithm.
    #[error("holds no ECDSA key on P-256, P-384 or P-521, or a damaged one")]
    Curve,
}

impl KeyFault {
    pub(super) fn hint(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Encrypted => {
                format!("give it decrypted, without a copy on disk: `--key <(openssl pkey -in {path})`")
            }
            Self::Private => {
                format!("`openssl pkey -in {path} -pubout -out public.pem` writes the public key")
            }
            Self::Public => "give the private key, which only the signer has".to_owned(),
            _ => "`openssl ecparam -name prime256v1 -genkey -noout -out private.pem` makes a key".to_owned(),
        }
    }
}

/// A key to sign with.
pub struct PrivateKey(Signing);

enum Signing {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(p521::ecdsa::SigningKey),
}

/// A key to verify with.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicKey(Verifying);

#[derive(Clone, Debug, PartialEq)]
enum Verifying {
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
}

/// Keys are secret.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PrivateKey({})", self.public().fingerprint())
    }
}

impl PrivateKey {
    /// Reads a PEM file.
    pub fn read(path: &Path) -> Result<PrivateKey, SignatureError> {
        let text = read_text(path)?;
        Self::from_pem(&text).map_err(|fault| SignatureError::Key { path: path.to_owned(), fault })
    }

    /// Reads PEM text; `EC PARAMETERS` before the key, which `openssl ecparam` writes, are passed over.
    pub fn from_pem(text: &str) -> Result<PrivateKey, KeyFault> {
        let block = Block::find(text, &["EC PARAMETERS"])?;
        let key = match block.label {
            "PRIVATE KEY" => block.der()?,
            "EC PRIVATE KEY" if block.text.contains("Proc-Type:") => return Err(KeyFault::Encrypted),
            "EC PRIVATE KEY" => return sec1(&block.der()?),
            "ENCRYPTED PRIVATE KEY" => return Err(KeyFault::Encrypted),
            "PUBLIC KEY" => return Err(KeyFault::Public),
            label => return Err(KeyFault::Label { label: label.to_owned() }),
        };
        // Each curve refuses the keys of the others.
        p256::SecretKey::from_pkcs8_der(&key)
            .map(|key| Signing::P256(key.into()))
            .or_else(|_| p384::SecretKey::from_pkcs8_der(&key).map(|key| Signing::P384(key.into())))
            .or_else(|_| p521::SecretKey::from_pkcs8_der(&key).map(|key| Signing::P521(key.into())))
            .map(PrivateKey)
            .map_err(|_| KeyFault::Curve)
    }

    /// Returns the key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(match &self.0 {
            Signing::P256(key) => Verifying::P256(*key.verifying_key()),
            Signing::P384(key) => Verifying::P384(*key.verifying_key()),
            Signing::P521(key) => Verifying::P521(*key.verifying_key()),
        })
    }

    /// Signs a message: DER.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        match &self.0 {
            Signing::P256(key) => {
                key.try_sign(message).map(|signed: p256::ecdsa::DerSignature| signed.as_bytes().to_vec())
            }
            Signing::P384(key) => {
                key.try_sign(message).map(|signed: p384::ecdsa::DerSignature| signed.as_bytes().to_vec())
            }
            Signing::P521(key) => {
                key.try_sign(message).map(|signed: p521::ecdsa::DerSignature| signed.as_bytes().to_vec())
            }
        }
        .map_err(|source| SignatureError::Sign { curve: self.public().curve(), source })
    }
}

fn sec1(der: &[u8]) -> Result<PrivateKey, KeyFault> {
    // A key that does not name its curve belongs to the smallest that it fits: they differ in length.
    p256::SecretKey::from_sec1_der(der)
        .map(|key| Signing::P256(key.into()))
        .or_else(|_| p384::SecretKey::from_sec1_der(der).map(|key| Signing::P384(key.into())))
        .or_else(|_| p521::SecretKey::from_sec1_der(der).map(|key| Signing::P521(key.into())))
        .map(PrivateKey)
        .map_err(|_| KeyFault::Curve)
}

impl PublicKey {
    /// Reads a PEM file.
    pub fn read(path: &Path) -> Result<PublicKey, SignatureError> {
        let text = read_text(path)?;
        Self::from_pem(&text).map_err(|fault| SignatureError::Key { path: path.to_owned(), fault })
    }

    /// Reads PEM text.
    pub fn from_pem(text: &str) -> Result<PublicKey, KeyFault> {
        let block = Block::find(text, &[])?;
        if block.label != "PUBLIC KEY" {
            return Err(match block.label {
                label if label.ends_with("PRIVATE KEY") || label == "EC PARAMETERS" => KeyFault::Private,
                label => KeyFault::Label { label: label.to_owned() },
            });
        }
        let key = block.der()?;
        p256::ecdsa::VerifyingKey::from_public_key_der(&key)
            .map(Verifying::P256)
            .or_else(|_| p384::ecdsa::VerifyingKey::from_public_key_der(&key).map(Verifying::P384))
            .or_else(|_| p521::ecdsa::VerifyingKey::from_public_key_der(&key).map(Verifying::P521))
            .map(PublicKey)
            .map_err(|_| KeyFault::Curve)
    }

    /// Returns the curve.
    pub fn curve(&self) -> Curve {
        match self.0 {
            Verifying::P256(_) => Curve::P256,
            Verifying::P384(_) => Curve::P384,
            Verifying::P521(_) => Curve::P521,
        }
    }

    /// Returns the PEM `SubjectPublicKeyInfo` text, as `openssl` writes it.
    pub fn to_pem(&self) -> String {
        match &self.0 {
            Verifying::P256(key) => key.to_public_key_pem(LineEnding::LF),
            Verifying::P384(key) => key.to_public_key_pem(LineEnding::LF),
            Verifying::P521(key) => key.to_public_key_pem(LineEnding::LF),
        }
        .expect("a point of a known curve has an encoding")
    }

    /// Returns the hexadecimal SHA-256 of [`to_pem`](Self::to_pem), by which a signature names its key.
    pub fn fingerprint(&self) -> String {
        Digest::of(self.to_pem().as_bytes()).to_string()
    }

    /// Whether a signature in DER is this key's over a message; none if it is no DER signature.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> Option<bool> {
        Some(match &self.0 {
            Verifying::P256(key) => {
                key.verify(message, &p256::ecdsa::DerSignature::try_from(signature).ok()?).is_ok()
            }
            Verifying::P384(key) => {
                key.verify(message, &p384::ecdsa::DerSignature::try_from(signature).ok()?).is_ok()
            }
            Verifying::P521(key) => {
                key.verify(message, &p521::ecdsa::DerSignature::try_from(signature).ok()?).is_ok()
            }
        })
    }
}
