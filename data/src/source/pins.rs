//! Hashes a recipe expects of its files.

use std::collections::BTreeMap;

use super::error::SourceError;
use super::hash::is_sha256;
use super::{Resolved, Source};

/// Checked pins: file name to sha256 in lower case.
#[derive(Debug)]
pub(super) struct Pins(BTreeMap<String, String>);

impl Pins {
    /// Reads pins as a recipe writes them; a leading `sha256:` is allowed.
    pub(super) fn new(written: &BTreeMap<String, String>) -> Result<Self, SourceError> {
        let mut pins = BTreeMap::new();
        for (file, pin) in written {
            let hash = pin.strip_prefix("sha256:").unwrap_or(pin).to_ascii_lowercase();
            if !is_sha256(&hash) {
                return Err(SourceError::MalformedPin { file: file.clone(), pin: pin.clone() });
            }
            pins.insert(file.clone(), hash);
        }
        Ok(Self(pins))
    }

    /// Compares each pin with its file. A pin without a file would guard nothing, so it is an error.
    pub(super) fn check(&self, source: &Source, resolved: &Resolved) -> Result<(), SourceError> {
        for (name, expected) in &self.0 {
            let Some(file) = resolved.file(name) else {
                return Err(SourceError::UnmatchedPin {
                    file: name.clone(),
                    source_text: source.to_string(),
                    names: resolved.files.iter().map(|file| file.name.clone()).collect(),
                });
            };
            if file.sha256 != *expected {
                return Err(SourceError::PinMismatch {
                    file: name.clone(),
                    source_text: source.to_string(),
                    expected: expected.clone(),
                    found: file.sha256.clone(),
                });
            }
        }
        Ok(())
    }
}
