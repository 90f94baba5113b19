//! One statement about the licence of a source: what was said, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::licence::Licence;
use crate::weights::GgufAbout;

/// Longest link that is kept, bytes.
const MAX_LINK: usize = 500;

/// Where a statement stands, the most particular first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `license` in the recipe.
    Recipe,
    /// `general.license` of a GGUF file.
    Gguf,
    /// Front matter of the `README.md` of a repository or folder.
    Card,
    /// Metadata of a Python package.
    Wheel,
    /// The name of the model, where nothing else is said.
    Name,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Recipe => "stated in the recipe",
            Self::Gguf => "`general.license` of the GGUF file",
            Self::Card => "front matter of `README.md`",
            Self::Wheel => "metadata of the package",
            Self::Name => "guessed from the model's name",
        })
    }
}

/// A licence as it was stated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// An SPDX expression, or the hub's word for a licence that SPDX does not list.
    pub id: String,
    /// The licence's own name, where that is not its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where its text is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Where the statement stands.
    pub from: Origin,
}

impl Statement {
    /// Makes a statement of what metadata holds; `None` where it says nothing.
    pub(super) fn read(id: &str, name: Option<String>, link: Option<String>, from: Origin) -> Option<Self> {
        let name = name.filter(|name| !name.trim().is_empty());
        let licence = Licence::read(id, name.as_deref())?;
        let is_other = !licence.is_listed() || matches!(licence, Licence::Terms(_));
        let link = link.filter(|link| is_link(link)).or_else(|| match &licence {
            Licence::Terms(terms) => Some(terms.link.to_owned()),
            _ => None,
        });
        let name = name.map(|name| name.chars().filter(|c| !c.is_control()).take(MAX_LINK).collect());
        Some(Self { id: licence.to_string(), name: name.filter(|_| is_other), link, from })
    }

    /// Reads what a GGUF file says, else what its name lets one guess.
    pub(super) fn of_gguf(about: &GgufAbout) -> Option<Self> {
        let id = about.license.as_deref().unwrap_or("other");
        Self::read(id, about.license_name.clone(), about.license_link.clone(), Origin::Gguf)
    }

    /// Returns the licence that the id means.
    pub fn licence(&self) -> Licence {
        // The id is the text form of a licence, unless a lock was edited by hand.
        Licence::known(&self.id).unwrap_or_else(|| Licence::Spdx(self.id.clone()))
    }
}

/// Whether a text may stand as a link in a card: an address of the web, without what would end it.
fn is_link(text: &str) -> bool {
    (text.starts_with("https://") || text.starts_with("http://"))
        && text.len() <= MAX_LINK
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"'`()[]\\|".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gguf_metadata() {
        let about = |license: Option<&str>, name: Option<&str>, link: Option<&str>| GgufAbout {
            name: None,
            license: license.map(str::to_owned),
            license_name: name.map(str::to_owned),
            license_link: link.map(str::to_owned),
        };
        let read = |about: &GgufAbout| Statement::of_gguf(about).map(|found| (found.id, found.link));
        assert_eq!(read(&about(Some("apache-2.0"), None, None)), Some(("Apache-2.0".to_owned(), None)));
        let other = about(Some("other"), Some("llama3.2"), Some("javascript:alert(1)"));
        let terms = "https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/LICENSE";
        assert_eq!(read(&other), Some(("llama3.2".to_owned(), Some(terms.to_owned()))));
        let named = about(None, Some("Some Licence"), Some("https://x/y"));
        assert_eq!(
            read(&named),
            Some(("LicenseRef-Some-Licence".to_owned(), Some("https://x/y".to_owned())))
        );
        assert_eq!(read(&GgufAbout::default()), None);
    }

    #[test]
    fn links_cannot_break_out_of_a_card() {
        for link in ["https://x/a)b", "https://x/<a>", "ftp://x", "https://x/\ny", "LICENSE"] {
            assert!(!is_link(link), "{link}");
        }
        assert!(is_link("https://x.org/a-b_c?d=e#f"));
    }
}
