//! The signatures that lie with a run or an export.

use std::path::Path;

use super::inputs::with_causes;
use super::report::Report;
use super::subject::Subject;
use crate::evidence::outputs::EXPORTS;
use crate::evidence::signing::{PublicKey, SignatureError, VerifyOptions, signature_of, verify};
use crate::log::from_here;
use crate::recipe::shown_bytes;

const NAME: &str = "signature";

/// Verifies the signature of the folder, or the one at `given`, and those of the exports below it.
pub(super) fn check(subject: &Subject, key: Option<&PublicKey>, given: Option<&Path>, report: &mut Report) {
    let own = given.map_or_else(|| signature_of(&subject.folder), Path::to_owned);
    if own.is_file() || given.is_some() {
        one(&subject.folder, &own, key, report);
    } else if key.is_some() {
        report.failed(NAME, format!("there is no `{}`", own.display()));
    } else {
        report.skipped(NAME, "there is none");
    }
    if subject.export.is_none() {
        for folder in EXPORTS.map(|export| subject.folder.join(export)) {
            let signature = signature_of(&folder);
            if signature.is_file() {
                one(&folder, &signature, key, report);
            }
        }
    }
}

fn one(folder: &Path, signature: &Path, key: Option<&PublicKey>, report: &mut Report) {
    let shown = from_here(signature);
    let shown = shown.display();
    match verify(folder, signature, key, &VerifyOptions::default()) {
        Ok(verified) => {
            let by = match verified.signed_by {
                Some(signer) => {
                    format!("signed by the {} key {}...", signer.curve, &signer.fingerprint[..12])
                }
                None => "as listed there; by whom is not known without `--key`".to_owned(),
            };
            let (files, bytes) = (verified.files, shown_bytes(verified.bytes));
            report.ok(NAME, format!("`{shown}`: {files} files, {bytes}, {by}"));
        }
        Err(SignatureError::Mismatch { findings, .. }) => {
            for finding in findings {
                report.failed(NAME, format!("`{shown}`: {finding}"));
            }
        }
        Err(error) => report.failed(NAME, with_causes(&error.into())),
    }
}
