//! The signature file: a Sigstore bundle around a DSSE envelope around a statement.
//!
//! Unknown fields of the bundle are refused, as JSON of a protocol buffer is read. Of the old fields `rawBytes` and
//! `keyDetails` nothing is used: who signed is decided by the key that the user gives, never by the signature.
//!
//! # Source
//! OpenSSF Model Signing v1.0; DSSE v1.0 for the pre-authentication encoding; Sigstore bundle v0.3.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::error::FormatFault;

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// What a signature file holds, decoded but not verified.
#[derive(Debug)]
pub(super) struct Envelope {
    /// The statement, JSON.
    pub payload: Vec<u8>,
    /// The signature in DER.
    pub signature: Vec<u8>,
    /// Fingerprint of the key, if the bundle names one.
    pub hint: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Dsse,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Material {
    public_key: Option<KeyName>,
    /// Entries of a transparency log: none here.
    tlog_entries: Option<Vec<Nothing>>,
    #[serde(skip_serializing)]
    timestamp_verification_data: Option<IgnoredAny>,
    #[serde(skip_serializing)]
    certificate: Option<IgnoredAny>,
    #[serde(skip_serializing)]
    x509_certificate_chain: Option<IgnoredAny>,
}

/// Something of which only its presence counts; never written.
#[derive(Deserialize, Serialize)]
struct Nothing {}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KeyName {
    hint: Option<String>,
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "accepted from signers before 1.1")]
    raw_bytes: Option<IgnoredAny>,
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "accepted from signers before 1.1")]
    key_details: Option<IgnoredAny>,
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "accepted from signers before 1.1")]
    valid_for: Option<IgnoredAny>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Dsse {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    sig: String,
    /// Absent, null or any text; it says nothing that is relied on.
    keyid: Option<String>,
}

/// Returns the bytes that are signed.
pub(super) fn pre_authentication_encoding(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Reads a signature file.
pub(super) fn read(bytes: &[u8]) -> Result<Envelope, FormatFault> {
    let bundle: Bundle =
        serde_json::from_slice(bytes).map_err(|source| FormatFault::Json { part: "bundle", source })?;
    constant("mediaType", &bundle.media_type, MEDIA_TYPE)?;
    let material = bundle.verification_material;
    if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
        return Err(FormatFault::Method { method: "a certificate" });
    }
    if material.timestamp_verification_data.is_some()
        || material.tlog_entries.is_some_and(|entries| !entries.is_empty())
    {
        return Err(FormatFault::Method { method: "a transparency log or a time stamp" });
    }
    let Some(key) = material.public_key else {
        return Err(FormatFault::Method { method: "an unknown method" });
    };
    let envelope = bundle.dsse_envelope;
    constant("payloadType", &envelope.payload_type, PAYLOAD_TYPE)?;
    let [signature] = envelope.signatures.as_slice() else {
        return Err(FormatFault::One { what: "signatures", count: envelope.signatures.len() });
    };
    Ok(Envelope {
        payload: decode("payload", &envelope.payload)?,
        signature: decode("sig", &signature.sig)?,
        hint: key.hint.filter(|hint| !hint.is_empty()),
    })
}

/// Writes a signature file.
pub(super) fn write(envelope: &Envelope) -> Result<Vec<u8>, serde_json::Error> {
    let bundle = Bundle {
        media_type: MEDIA_TYPE.to_owned(),
        verification_material: Material {
            public_key: Some(KeyName {
                hint: envelope.hint.clone(),
                raw_bytes: None,
                key_details: None,
                valid_for: None,
            }),
            tlog_entries: Some(Vec::new()),
            timestamp_verification_data: None,
            certificate: None,
            x509_certificate_chain: None,
        },
        dsse_envelope: Dsse {
            payload: STANDARD.encode(&envelope.payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![Signature {
                sig: STANDARD.encode(&envelope.signature),
                keyid: Some(String::new()),
            }],
        },
    };
    let mut text = serde_json::to_vec(&bundle)?;
    text.push(b'\n');
    Ok(text)
}

/// Whether a file says that it is a Sigstore bundle, whatever is in it.
pub(super) fn is_bundle(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "mediaType")]
        media_type: String,
    }
    serde_json::from_slice::<Head>(bytes)
        .is_ok_and(|head| head.media_type.starts_with("application/vnd.dev.sigstore.bundle"))
}

pub(super) fn constant(field: &'static str, found: &str, expected: &'static str) -> Result<(), FormatFault> {
    if found == expected {
        return Ok(());
    }
    Err(FormatFault::Constant { field, found: found.to_owned(), expected })
}

fn decode(field: &'static str, text: &str) -> Result<Vec<u8>, FormatFault> {
    STANDARD.decode(text).map_err(|_| FormatFault::Base64 { field })
}
