//! The front matter of a `README.md`: YAML between two lines of `---`, of which a few keys are read.
//!
//! Events are read rather than a document: aliases are not followed, so a short text cannot become a large value.

use saphyr_parser::{Event, Parser};

use super::statement::{Origin, Statement};

/// Reads `license`, `license_name` and `license_link`. Text that is not YAML says nothing.
///
/// Several licences in a list all apply.
pub(super) fn statement(readme: &str) -> Option<Statement> {
    let keys = top_level(front_matter(readme)?);
    let values =
        |key: &str| keys.iter().find(|(known, _)| known == key).map_or(&[][..], |(_, values)| values);
    let first = |key: &str| values(key).first().cloned();
    let id = match values("license") {
        [] => "other".to_owned(),
        [one] => one.clone(),
        several => several.join(" AND "),
    };
    Statement::read(&id, first("license_name"), first("license_link"), Origin::Card)
}

/// Cuts the front matter out of a text.
fn front_matter(text: &str) -> Option<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let rest = text.strip_prefix("---\n").or_else(|| text.strip_prefix("---\r\n"))?;
    let end = rest.find("\n---").map(|at| at + 1)?;
    Some(&rest[..end])
}

/// Lists the keys of the outermost mapping whose values are scalars or lists of scalars.
fn top_level(yaml: &str) -> Vec<(String, Vec<String>)> {
    let mut keys: Vec<(String, Vec<String>)> = Vec::new();
    let (mut depth, mut key, mut is_mapping) = (0_usize, None::<String>, false);
    for event in Parser::new_from_str(yaml) {
        let Ok((event, _)) = event else { break };
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                is_mapping |= depth == 0 && matches!(event, Event::MappingStart(..));
                depth += 1;
            }
            Event::MappingEnd | Event::SequenceEnd => {
                depth = depth.saturating_sub(1);
                if depth == 1 {
                    key = None;
                }
            }
            Event::Scalar(value, ..) if is_mapping && depth == 1 => match key.take() {
                None => key = Some(value.into_owned()),
                Some(name) => keys.push((name, vec![value.into_owned()])),
            },
            Event::Scalar(value, ..) if is_mapping && depth == 2 => {
                let Some(name) = &key else { continue };
                match keys.last_mut() {
                    Some((last, values)) if last == name => values.push(value.into_owned()),
                    _ => keys.push((name.clone(), vec![value.into_owned()])),
                }
            }
            Event::Alias(_) if depth == 1 => {
                key = match key {
                    None => Some(String::new()),
                    Some(_) => None,
                };
            }
            _ => {}
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn read(yaml: &str) -> Option<(String, Option<String>)> {
        let found = statement(&format!("---\n{yaml}\n---\n# Model\nlicense: mit\n"))?;
        Some((found.id, found.link))
    }

    #[test]
    fn a_licence_in_every_form() {
        let id = |yaml: &str| read(yaml).map(|(id, _)| id);
        assert_eq!(id("license: apache-2.0").as_deref(), Some("Apache-2.0"));
        assert_eq!(id("tags:\n- a\n- b\nlicense: 'mit' # yes\nx: {license: isc}").as_deref(), Some("MIT"));
        assert_eq!(id("license:\n- mit\n- cc-by-4.0").as_deref(), Some("MIT AND CC-BY-4.0"));
        assert_eq!(
            read("license: other\nlicense_name: llama-3.1-community\nlicense_link: https://x/LICENSE"),
            Some(("llama3.1".to_owned(), Some("https://x/LICENSE".to_owned())))
        );
        assert_eq!(id("license_name: own-terms").as_deref(), Some("LicenseRef-own-terms"));
        assert_eq!(id("dataset_info:\n  license: mit\nlicense: *anchor"), None);
        assert_eq!(id("license: unknown"), None);
    }

    #[test]
    fn text_without_front_matter_says_nothing() {
        for text in
            ["", "# A\nlicense: mit\n", "---\nlicense: mit\n", "---\n: [}\n---\n", "---\n- license\n---\n"]
        {
            assert_eq!(statement(text), None, "{text}");
        }
        let crlf = "---\r\nlicense: mit\r\n---\r\n";
        assert_eq!(statement(crlf).map(|found| found.id).as_deref(), Some("MIT"));
    }

    #[test]
    fn aliases_do_not_grow() {
        let mut yaml = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, of) in ('b'..='p').zip('a'..) {
            let list = vec![format!("*{of}"); 9].join(",");
            writeln!(yaml, "{name}: &{name} [{list}]").expect("a string takes all");
        }
        assert_eq!(read(&(yaml + "license: mit")).map(|(id, _)| id).as_deref(), Some("MIT"));
    }

    #[test]
    fn deep_nesting_is_survived() {
        let deep = format!("a: {}", "[".repeat(100_000));
        assert_eq!(read(&deep), None);
    }
}
