//! The little YAML that front matter needs, written by hand: keys are ours, and every text is quoted as JSON quotes
//! it, which YAML reads alike.

use std::fmt::Write;

/// Lines of YAML under construction.
#[derive(Default)]
pub(super) struct Yaml(String);

impl Yaml {
    /// Writes `key: "text"`; `key` brings its own indentation and dash.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{key}: {}", quoted(value));
    }

    /// Writes `key: number` with six digits after the point.
    pub(super) fn number(&mut self, key: &str, value: f64) {
        let _ = writeln!(self.0, "{key}: {value:.6}");
    }

    /// Writes `key:` for what follows indented.
    pub(super) fn open(&mut self, key: &str) {
        let _ = writeln!(self.0, "{key}:");
    }

    /// Writes a list of texts; nothing where it is empty.
    pub(super) fn list(&mut self, key: &str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        self.open(key);
        for value in values {
            let _ = writeln!(self.0, "- {}", quoted(value));
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string always prints")
}
