//! `[policy]`: which licences a run may use.

use super::found::Found;
use super::licence::Licence;
use super::statement::Statement;
use crate::recipe::{Policy, Unknown};

/// A source that the recipe's policy refuses.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum PolicyError {
    #[error(
        "`policy.deny` refuses `{key}`: `{source_text}` is under {licence} ({origin}), and `{entry}` is denied"
    )]
    Denied { key: String, source_text: String, licence: String, origin: String, entry: String },
    #[error(
        "`policy.allow` does not have the licence of `{key}`: `{source_text}` is under {licence} ({origin})"
    )]
    NotAllowed { key: String, source_text: String, licence: String, origin: String },
    #[error("`policy.unknown` refuses `{key}`: {what} of `{source_text}`{why}")]
    Unknown { key: String, source_text: String, what: String, why: String },
}

impl PolicyError {
    /// Says what to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Denied { entry, .. } => {
                format!("use another source, or take `{entry}` off `policy.deny`")
            }
            Self::NotAllowed { licence, .. } => {
                format!("use another source, or add `{licence}` to `policy.allow`")
            }
            Self::Unknown { key, .. } if key == "adapter.from" => {
                "write the licence into the front matter of the adapter's `README.md`, or set `policy.unknown = \
                 \"warn\"`"
                    .to_owned()
            }
            Self::Unknown { key, .. } => {
                let key = key.replace(".source", ".license");
                format!("find out, then state it with `{key} = \"...\"`, or set `policy.unknown = \"warn\"`")
            }
        }
    }
}

/// When a source is held against the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// More may be learnt once the files are there: an unknown licence is no fault yet.
    Early,
    /// All that can be known is known.
    Final,
}

/// How one licence fares.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Denied(String),
    NotAllowed,
    /// On no list of the world, and not named by the policy.
    Unlisted,
}

/// Holds every statement about a source against the policy: a statement of the recipe does not outweigh one that
/// was found.
pub(super) fn check(policy: &Policy, found: &Found, stage: Stage) -> Result<(), PolicyError> {
    let (key, source_text) = (found.key.clone(), found.source.clone());
    let verdicts: Vec<_> = found.statements.iter().map(|one| (one, judge(policy, &one.licence()))).collect();
    for (one, verdict) in &verdicts {
        let (licence, origin) = (one.id.clone(), one.from.to_string());
        match verdict {
            Verdict::Denied(entry) => {
                return Err(PolicyError::Denied { key, source_text, licence, origin, entry: entry.clone() });
            }
            Verdict::NotAllowed => return Err(PolicyError::NotAllowed { key, source_text, licence, origin }),
            Verdict::Accepted | Verdict::Unlisted => {}
        }
    }
    let known = verdicts.iter().any(|(_, verdict)| *verdict == Verdict::Accepted);
    if known || stage == Stage::Early || policy.unknown != Unknown::Refuse {
        return Ok(());
    }
    let (what, why) = unknown(found);
    Err(PolicyError::Unknown { key, source_text, what, why })
}

/// Words the warning about an unknown licence, where the policy asks for one.
pub(super) fn warning(policy: &Policy, found: &Found) -> Option<String> {
    let mut verdicts = found.statements.iter().map(|one| judge(policy, &one.licence()));
    if policy.unknown != Unknown::Warn || verdicts.any(|verdict| verdict == Verdict::Accepted) {
        return None;
    }
    let (what, why) = unknown(found);
    Some(format!("{what} of `{}` (`{}`){why}", found.key, found.source))
}

fn unknown(found: &Found) -> (String, String) {
    let what = match found.statement() {
        Some(Statement { id, from, .. }) => format!("nothing is known of the licence `{id}` ({from})"),
        None => "no licence is known".to_owned(),
    };
    (what, found.unasked.as_ref().map_or(String::new(), |why| format!(": {why}")))
}

/// Judges one licence. `A OR B` passes when one of them does, `A AND B` when both do.
fn judge(policy: &Policy, licence: &Licence) -> Verdict {
    let has = |list: &[String], id: &str| list.iter().any(|entry| entry.eq_ignore_ascii_case(id));
    let allowed = |id: &str| policy.allow.is_empty() || has(&policy.allow, id);
    let unlisted = |id: &str| id.starts_with("LicenseRef-") && !has(&policy.allow, id);
    if licence.evaluate(|id| !has(&policy.deny, id) && allowed(id) && !unlisted(id)) {
        return Verdict::Accepted;
    }
    if !licence.evaluate(|id| !has(&policy.deny, id)) {
        let entry = licence.parts().into_iter().find(|id| has(&policy.deny, id));
        return Verdict::Denied(entry.unwrap_or_default());
    }
    // What remains is a matter of the lists, or of a name that is on none.
    if licence.evaluate(|id| !has(&policy.deny, id) && (allowed(id) || unlisted(id))) {
        return Verdict::Unlisted;
    }
    Verdict::NotAllowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let list = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        Policy { allow: list(allow), deny: list(deny), unknown: Unknown::Refuse }
    }

    fn verdict(allow: &[&str], deny: &[&str], id: &str) -> Verdict {
        judge(&policy(allow, deny), &Licence::read(id, None).expect("a licence"))
    }

    #[test]
    fn lists_and_choices() {
        let denied = |entry: &str| Verdict::Denied(entry.to_owned());
        assert_eq!(verdict(&[], &["MIT"], "apache-2.0"), Verdict::Accepted);
        assert_eq!(verdict(&[], &["CC-BY-NC-4.0"], "cc-by-nc-4.0"), denied("CC-BY-NC-4.0"));
        assert_eq!(verdict(&[], &["GPL-3.0-only"], "MIT OR GPL-3.0-only"), Verdict::Accepted);
        assert_eq!(verdict(&[], &["GPL-3.0-only"], "MIT AND GPL-3.0-only"), denied("GPL-3.0-only"));
        assert_eq!(verdict(&["MIT"], &[], "MIT OR GPL-3.0-only"), Verdict::Accepted);
        assert_eq!(verdict(&["MIT"], &[], "MIT AND CC-BY-4.0"), Verdict::NotAllowed);
        assert_eq!(verdict(&["MIT"], &[], "llama3.1"), Verdict::NotAllowed);
        assert_eq!(verdict(&["MIT", "llama3.1"], &[], "llama3.1"), Verdict::Accepted);
        assert_eq!(verdict(&[], &["llama3.1"], "llama3.1"), denied("llama3.1"));
        assert_eq!(verdict(&[], &["MIT"], "own terms"), Verdict::Unlisted);
        assert_eq!(verdict(&["MIT"], &[], "own terms"), Verdict::Unlisted);
        assert_eq!(verdict(&["LicenseRef-own-terms"], &[], "own terms"), Verdict::Accepted);
        assert_eq!(verdict(&[], &["LicenseRef-own-terms"], "own terms"), denied("LicenseRef-own-terms"));
        // Both lists name it: denied.
        assert_eq!(verdict(&["MIT"], &["MIT"], "mit"), denied("MIT"));
    }
}
