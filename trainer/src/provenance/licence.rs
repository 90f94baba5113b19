//! Licences: SPDX expressions, the hub's words for licences, and community terms.

use std::fmt;

use spdx::identifiers::LICENSES;
use spdx::{Expression, LicenseReq, ParseMode};

use super::hub_ids::{self, HubId};
use super::terms::Terms;

/// What SPDX calls a licence that is not on its list.
const REFERENCE: &str = "LicenseRef-";
/// An id or an expression has some dozen characters; more is a licence's text.
const MAX_ID: usize = 200;
/// Characters kept of a licence's own name.
const MAX_NAME: usize = 64;

/// A licence as far as it is recognised; its text form is what lists and locks hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Licence {
    /// An SPDX expression in SPDX's spelling. A licence that nobody lists is `LicenseRef-` and its name.
    Spdx(String),
    /// The terms of a family of models.
    Terms(&'static Terms),
    /// A licence of the hub's list that SPDX does not have.
    Hub(&'static str),
}

impl fmt::Display for Licence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Spdx(text) => text,
            Self::Terms(terms) => terms.id,
            Self::Hub(id) => id,
        })
    }
}

impl Licence {
    /// Reads an id as metadata has it: an SPDX expression, a word of the hub's list, or a licence's name. `name` is
    /// what stands beside `other`.
    ///
    /// `None` where nothing is said, as with `unknown`, or where a whole licence stands in place of its id.
    pub fn read(id: &str, name: Option<&str>) -> Option<Self> {
        let id = id.trim();
        if ["other", "other-license"].contains(&id.to_lowercase().as_str()) {
            return name.and_then(Self::named);
        }
        Self::known(id).or_else(|| Self::named(id))
    }

    /// Reads an id that must be recognised: of SPDX, of the hub, or `LicenseRef-...`.
    pub fn known(id: &str) -> Option<Self> {
        let id = id.trim();
        if says_nothing(id) {
            return None;
        }
        if let Some(terms) = Terms::of_id(id) {
            return Some(Self::Terms(terms));
        }
        match hub_ids::find(id) {
            Some(HubId::Spdx(id)) => Some(Self::Spdx(id.to_owned())),
            Some(HubId::Own(id)) => Some(Self::Hub(id)),
            None => expression(id).map(Self::Spdx),
        }
    }

    /// Makes a licence of a name that is on no list, or is an own word for one that is.
    fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        if says_nothing(name) || name.len() > MAX_ID || name.contains('\n') {
            return None;
        }
        if let Some(known) = Self::known(name).or_else(|| Terms::of_name(name).map(Self::Terms)) {
            return Some(known);
        }
        if let Some(id) = hub_ids::spdx_of_title(name) {
            return Some(Self::Spdx(id.to_owned()));
        }
        let plain: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        let parts: Vec<&str> = plain.split('-').filter(|part| !part.is_empty()).collect();
        let short: String = parts.join("-").chars().take(MAX_NAME).collect();
        (!short.is_empty()).then(|| Self::Spdx(format!("{REFERENCE}{short}")))
    }

    /// Whether every part of it is on a list: a name of its own tells nobody what it allows.
    pub fn is_listed(&self) -> bool {
        !matches!(self, Self::Spdx(text) if text.contains(REFERENCE))
    }

    /// Whether `accepts` a choice of licences that this one offers: of `A OR B` one is enough, of `A AND B` both
    /// are needed. `accepts` gets the text form of single licences, without exceptions.
    pub fn evaluate(&self, accepts: impl Fn(&str) -> bool) -> bool {
        match self.parsed() {
            Some(parsed) => parsed.evaluate(|part| accepts(&without_exception(part))),
            None => accepts(&self.to_string()),
        }
    }

    /// Lists the single licences of it, in their order.
    pub fn parts(&self) -> Vec<String> {
        match self.parsed() {
            Some(parsed) => parsed.requirements().map(|part| without_exception(&part.req)).collect(),
            None => vec![self.to_string()],
        }
    }

    fn parsed(&self) -> Option<Expression> {
        match self {
            Self::Spdx(text) => Expression::parse(text).ok(),
            _ => None,
        }
    }
}

/// Whether a text stands where nobody wanted to say anything.
fn says_nothing(text: &str) -> bool {
    ["", "unknown", "none", "noassertion", "n/a", "other"].contains(&text.to_lowercase().as_str())
}

fn without_exception(part: &LicenseReq) -> String {
    part.license.to_string()
}

/// Returns an expression in SPDX's spelling, if that is what the text is.
///
/// Upper and lower case do not matter; GNU licences without `-only` or `-or-later` mean the former, as SPDX has it.
fn expression(text: &str) -> Option<String> {
    if text.len() > MAX_ID {
        return None;
    }
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<String> = spaced.split_whitespace().map(spelled).collect();
    let joined = words.join(" ").replace("( ", "(").replace(" )", ")");
    let strict = ParseMode::STRICT;
    Expression::parse_mode(&joined, strict).ok().map(|_| joined)
}

/// Writes a word of an expression as SPDX does; one that it does not know stays.
fn spelled(word: &str) -> String {
    let upper = word.to_uppercase();
    if ["AND", "OR", "WITH", "(", ")"].contains(&upper.as_str()) {
        return upper;
    }
    let listed = |name: &str| LICENSES.iter().find(|known| known.name.eq_ignore_ascii_case(name));
    if let Some(base) = word.strip_suffix('+')
        && let Some(known) = listed(&format!("{base}-or-later"))
    {
        return known.name.to_owned();
    }
    if let Some(known) = listed(&format!("{word}-only")) {
        return known.name.to_owned();
    }
    let plus = if word.ends_with('+') { "+" } else { "" };
    listed(word.trim_end_matches('+'))
        .map_or_else(|| word.to_owned(), |known| format!("{}{plus}", known.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(id: &str) -> Option<String> {
        Licence::read(id, None).map(|licence| licence.to_string())
    }

    #[test]
    fn ids_of_spdx_and_of_the_hub() {
        let cases = [
            ("Apache-2.0", "Apache-2.0"),
            ("apache-2.0", "Apache-2.0"),
            ("cc-by-4.0", "CC-BY-4.0"),
            ("gpl-3.0", "GPL-3.0-only"),
            ("GPL-2.0+", "GPL-2.0-or-later"),
            ("apache-2.0 or mit", "Apache-2.0 OR MIT"),
            (
                "(MIT and isc) OR Apache-2.0 WITH LLVM-exception",
                "(MIT AND ISC) OR Apache-2.0 WITH LLVM-exception",
            ),
            ("odc-by", "ODC-By-1.0"),
            ("llama3.1", "llama3.1"),
            ("gemma", "gemma"),
            ("openrail", "openrail"),
            ("MIT License", "MIT"),
            ("Apache License 2.0", "Apache-2.0"),
            ("LicenseRef-mine", "LicenseRef-mine"),
            ("My  own_license!", "LicenseRef-My-own-license"),
        ];
        for (id, expected) in cases {
            assert_eq!(read(id).as_deref(), Some(expected), "{id}");
        }
        for id in ["", "unknown", "other", "NOASSERTION", "a\nb", &"x".repeat(300)] {
            assert_eq!(read(id), None, "{id}");
        }
        assert_eq!(Licence::known("aapache-2.0"), None);
        let named = |name| Licence::read("other", Some(name)).map(|licence| licence.to_string());
        assert_eq!(named("llama-3.3-community").as_deref(), Some("llama3.3"));
        assert_eq!(named("nvidia-open").as_deref(), Some("LicenseRef-nvidia-open"));
    }

    #[test]
    fn what_is_read_reads_back() {
        for id in [
            "mit or isc",
            "gpl-3.0",
            "llama2",
            "openrail++",
            "some licence",
            "(MIT OR ISC) AND 0BSD",
            "a OR b",
        ] {
            let licence = Licence::read(id, None).expect(id);
            assert_eq!(Licence::known(&licence.to_string()), Some(licence), "{id}");
        }
    }

    #[test]
    fn expressions_are_choices() {
        let licence = Licence::known("(MIT OR GPL-3.0-only) AND CC-BY-4.0").expect("known");
        assert_eq!(licence.parts(), ["MIT", "GPL-3.0-only", "CC-BY-4.0"]);
        assert!(licence.evaluate(|id| id != "GPL-3.0-only"));
        assert!(!licence.evaluate(|id| id != "CC-BY-4.0"));
        assert!(licence.is_listed() && !Licence::read("mine", None).expect("named").is_listed());
        let exception = Licence::known("Apache-2.0 WITH LLVM-exception").expect("known");
        assert!(exception.evaluate(|id| id == "Apache-2.0"));
    }
}
