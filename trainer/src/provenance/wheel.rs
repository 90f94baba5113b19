//! The licence in the metadata of a Python package.
//!
//! Source: <https://packaging.python.org/en/latest/specifications/core-metadata/>.

use super::statement::{Origin, Statement};

/// Classifiers that mean one licence of one version.
const CLASSIFIERS: [(&str, &str); 8] = [
    ("License :: OSI Approved :: MIT License", "MIT"),
    ("License :: OSI Approved :: ISC License (ISCL)", "ISC"),
    ("License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
    ("License :: OSI Approved :: The Unlicense (Unlicense)", "Unlicense"),
    ("License :: OSI Approved :: zlib/libpng License", "Zlib"),
    ("License :: CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0-1.0"),
    ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", "GPL-3.0-only"),
    ("License :: OSI Approved :: GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
];

/// Reads `License-Expression`, else `License`, else the classifiers.
pub(super) fn statement(metadata: &str) -> Option<Statement> {
    let head: Vec<&str> = metadata.lines().take_while(|line| !line.trim().is_empty()).collect();
    let field = |name: &str| {
        let at =
            head.iter().position(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))?;
        // A field that goes on in the next line is the text of a licence, not its name.
        let goes_on = head.get(at + 1).is_some_and(|next| next.starts_with([' ', '\t', '|']));
        (!goes_on).then(|| head[at][name.len() + 1..].trim())
    };
    let read = |id: &str| Statement::read(id, None, None, Origin::Wheel);
    let classified = || {
        let mut found: Vec<&str> = head
            .iter()
            .filter_map(|line| line.strip_prefix("Classifier:"))
            .filter_map(|text| CLASSIFIERS.iter().find(|(known, _)| *known == text.trim()))
            .map(|(_, id)| *id)
            .collect();
        found.dedup();
        // Several may be a choice or may all apply.
        if let [one] = found[..] { read(one) } else { None }
    };
    field("License-Expression").and_then(read).or_else(|| field("License").and_then(read)).or_else(classified)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(metadata: &str) -> Option<String> {
        statement(metadata).map(|found| found.id)
    }

    #[test]
    fn the_expression_comes_first() {
        let both = "Metadata-Version: 2.4\nLicense: GPL\nLicense-Expression: MIT OR Apache-2.0\n\nText";
        assert_eq!(read(both).as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(read("Name: x\nLicense: CC-BY-4.0\n").as_deref(), Some("CC-BY-4.0"));
        let classifier = "Name: x\nClassifier: License :: OSI Approved :: MIT License\n";
        assert_eq!(read(classifier).as_deref(), Some("MIT"));
    }

    #[test]
    fn a_text_is_not_an_id() {
        let text = "Name: x\nLicense: MIT License\n        Permission is hereby granted\nSummary: y\n";
        assert_eq!(read(text), None);
        let two = "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: ISC License (ISCL)\n";
        assert_eq!(read(two), None);
        for text in ["", "Name: x\n", "Name: x\nLicense: UNKNOWN\n", "Name: x\n\nLicense: MIT\n"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
