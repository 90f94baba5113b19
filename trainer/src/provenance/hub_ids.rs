//! The words that the Hugging Face hub has for licences.
//!
//! Source: <https://huggingface.co/docs/hub/repositories-licenses>. Words that differ from SPDX's ids only in
//! upper and lower case need no entry for reading; they stand here so that a card can use the hub's own word.

/// What a word of the hub means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HubId {
    /// A licence of SPDX's list.
    Spdx(&'static str),
    /// A licence that SPDX does not list, or a family of licences.
    Own(&'static str),
}

/// The hub's word and SPDX's id.
const SPDX: [(&str, &str); 54] = [
    ("apache-2.0", "Apache-2.0"),
    ("mit", "MIT"),
    ("afl-3.0", "AFL-3.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("bsl-1.0", "BSL-1.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-3-clause-clear", "BSD-3-Clause-Clear"),
    ("c-uda", "C-UDA-1.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("cc-by-2.0", "CC-BY-2.0"),
    ("cc-by-2.5", "CC-BY-2.5"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc-by-nc-2.0", "CC-BY-NC-2.0"),
    ("cc-by-nc-3.0", "CC-BY-NC-3.0"),
    ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
    ("cc-by-nd-4.0", "CC-BY-ND-4.0"),
    ("cc-by-nc-nd-3.0", "CC-BY-NC-ND-3.0"),
    ("cc-by-nc-nd-4.0", "CC-BY-NC-ND-4.0"),
    ("cc-by-nc-sa-2.0", "CC-BY-NC-SA-2.0"),
    ("cc-by-nc-sa-3.0", "CC-BY-NC-SA-3.0"),
    ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
    ("cdla-sharing-1.0", "CDLA-Sharing-1.0"),
    ("cdla-permissive-1.0", "CDLA-Permissive-1.0"),
    ("cdla-permissive-2.0", "CDLA-Permissive-2.0"),
    ("wtfpl", "WTFPL"),
    ("ecl-2.0", "ECL-2.0"),
    ("epl-1.0", "EPL-1.0"),
    ("epl-2.0", "EPL-2.0"),
    ("etalab-2.0", "etalab-2.0"),
    ("eupl-1.1", "EUPL-1.1"),
    ("eupl-1.2", "EUPL-1.2"),
    ("agpl-3.0", "AGPL-3.0-only"),
    ("gpl-2.0", "GPL-2.0-only"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-3.0", "LGPL-3.0-only"),
    ("isc", "ISC"),
    ("lppl-1.3c", "LPPL-1.3c"),
    ("ms-pl", "MS-PL"),
    ("mpl-2.0", "MPL-2.0"),
    ("odc-by", "ODC-By-1.0"),
    ("odbl", "ODbL-1.0"),
    ("osl-3.0", "OSL-3.0"),
    ("postgresql", "PostgreSQL"),
    ("ofl-1.1", "OFL-1.1"),
    ("ncsa", "NCSA"),
    ("unlicense", "Unlicense"),
    ("zlib", "Zlib"),
    ("pddl", "PDDL-1.0"),
    ("lgpl-lr", "LGPLLR"),
];

/// Words for licences that SPDX does not list, and for whole families.
const OWN: [&str; 18] = [
    "openrail",
    "openrail++",
    "bigscience-openrail-m",
    "creativeml-openrail-m",
    "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m",
    "bsd",
    "cc",
    "gfdl",
    "gpl",
    "lgpl",
    "h-research",
    "intel-research",
    "apple-ascl",
    "apple-amlr",
    "deepfloyd-if-license",
    "fair-noncommercial-research-license",
    "grok2-community",
];

/// Titles that package metadata has in place of ids.
const TITLES: [(&str, &str); 14] = [
    ("mit license", "MIT"),
    ("the mit license", "MIT"),
    ("mit license (mit)", "MIT"),
    ("apache 2.0", "Apache-2.0"),
    ("apache 2", "Apache-2.0"),
    ("apache license 2.0", "Apache-2.0"),
    ("apache license, version 2.0", "Apache-2.0"),
    ("apache license version 2.0", "Apache-2.0"),
    ("bsd 2-clause license", "BSD-2-Clause"),
    ("bsd 3-clause license", "BSD-3-Clause"),
    ("cc0", "CC0-1.0"),
    ("cc by 4.0", "CC-BY-4.0"),
    ("cc by-sa 4.0", "CC-BY-SA-4.0"),
    ("mozilla public license 2.0 (mpl 2.0)", "MPL-2.0"),
];

/// Finds a word of the hub.
pub(super) fn find(word: &str) -> Option<HubId> {
    let spdx = SPDX.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, id)| HubId::Spdx(id));
    spdx.or_else(|| OWN.into_iter().find(|known| known.eq_ignore_ascii_case(word)).map(HubId::Own))
}

/// Returns the hub's word for an id of SPDX.
pub(super) fn of_spdx(id: &str) -> Option<&'static str> {
    SPDX.iter().find(|(_, known)| *known == id).map(|(word, _)| *word)
}

/// Returns the id of a licence that is named by its title.
pub(super) fn spdx_of_title(title: &str) -> Option<&'static str> {
    TITLES.iter().find(|(known, _)| known.eq_ignore_ascii_case(title)).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_one_of_spdx() {
        for id in SPDX.iter().map(|(_, id)| id).chain(TITLES.iter().map(|(_, id)| id)) {
            let known = spdx::license_id(id).unwrap_or_else(|| panic!("{id}"));
            assert!(!known.is_deprecated(), "{id}");
        }
        for (word, id) in SPDX {
            assert_eq!((find(word), of_spdx(id)), (Some(HubId::Spdx(id)), Some(word)));
        }
    }
}
