//! Which linear layers get an adapter: PEFT's matching rules on module paths.
//!
//! - `all-linear`: every linear layer except the output head.
//! - A list: an entry matches a path that equals it or ends with `.` and it. An entry with a regex
//!   metacharacter (one of `\ ^ $ * + ? ( ) [ ] { } |`; the dot does not count) must match the whole path.
//! - One pattern: must match the whole path (`re.fullmatch` in PEFT).
//!
//! An entry that matches nothing is an error, where PEFT is content if any other entry matches.
//!
//! Source: huggingface/peft `tuners/tuners_utils.py`, `check_target_module_exists` and
//! `_maybe_include_all_linear_layers`; `utils/other.py`, `get_pattern_key` (0.21.2).

use std::collections::BTreeSet;

use regex::Regex;

use crate::error::AdapterError;

/// Module name of the output head, which `all-linear` leaves out.
pub const OUTPUT_HEAD: &str = "lm_head";

/// A linear layer of the model: its Hugging Face module path and its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearModule {
    /// Module path, such as `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Width of the input.
    pub in_features: usize,
    /// Width of the output.
    pub out_features: usize,
}

/// Layers to adapt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Every linear layer except the output head.
    AllLinear,
    /// Names, ends of paths, or patterns (see the module's rules).
    List(Vec<String>),
    /// One pattern that matches whole paths.
    Pattern(String),
}

impl Targets {
    /// Reads the string form: `all-linear` in any case, else a pattern.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        if text.eq_ignore_ascii_case("all-linear") {
            return Self::AllLinear;
        }
        Self::Pattern(text.to_owned())
    }
}

/// Selects the layers to adapt, in the order of `modules`.
///
/// # Errors
/// An entry of either list that matches nothing, a pattern that does not parse, an empty selection.
pub fn select<'a>(
    targets: &Targets,
    exclude: &[String],
    modules: &'a [LinearModule],
) -> Result<Vec<&'a LinearModule>, AdapterError> {
    let wanted = selector(targets)?;
    let unwanted = exclude.iter().map(|entry| Entry::parse(entry)).collect::<Result<Vec<_>, _>>()?;
    for (list, entries) in [("targets", &wanted), ("exclude", &unwanted)] {
        if let Some(entry) = entries.iter().find(|e| !modules.iter().any(|m| e.matches(&m.name))) {
            let entry = entry.text().to_owned();
            return Err(AdapterError::NoMatch { list, entry, available: last_components(modules) });
        }
    }
    let any = |entries: &[Entry], name: &str| entries.iter().any(|entry| entry.matches(name));
    let selected: Vec<_> =
        modules.iter().filter(|m| any(&wanted, &m.name) && !any(&unwanted, &m.name)).collect();
    if selected.is_empty() {
        return Err(AdapterError::NothingSelected { available: last_components(modules) });
    }
    Ok(selected)
}

/// Tells whether targets select a module path, without the rule that every entry must be of use.
pub(crate) fn matcher(targets: &Targets) -> Result<impl Fn(&str) -> bool + use<>, AdapterError> {
    let wanted = selector(targets)?;
    Ok(move |name: &str| wanted.iter().any(|entry| entry.matches(name)))
}

fn selector(targets: &Targets) -> Result<Vec<Entry>, AdapterError> {
    match targets {
        Targets::AllLinear => Ok(vec![Entry::AllLinear]),
        Targets::List(entries) => entries.iter().map(|entry| Entry::parse(entry)).collect(),
        Targets::Pattern(pattern) => Ok(vec![Entry::Pattern(pattern.clone(), full_match(pattern)?)]),
    }
}

/// Writes a selection as the shortest list that PEFT reads back as the same layers: ends of names where
/// they select exactly these, else whole paths. Sorted.
#[must_use]
pub fn as_list(selected: &BTreeSet<&str>, modules: &[LinearModule]) -> Vec<String> {
    let ends: BTreeSet<&str> = selected.iter().map(|name| last_component(name)).collect();
    let by_end = modules.iter().filter(|m| ends.contains(last_component(&m.name))).count();
    if by_end == selected.len() {
        return ends.into_iter().map(str::to_owned).collect();
    }
    selected.iter().map(|name| (*name).to_owned()).collect()
}

fn last_component(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn last_components(modules: &[LinearModule]) -> Vec<String> {
    let distinct: BTreeSet<&str> = modules.iter().map(|m| last_component(&m.name)).collect();
    distinct.into_iter().map(str::to_owned).collect()
}

enum Entry {
    AllLinear,
    Name(String),
    Pattern(String, Regex),
}

impl Entry {
    fn parse(text: &str) -> Result<Self, AdapterError> {
        if text.contains(|c| r"\^$*+?()[]{}|".contains(c)) {
            return Ok(Self::Pattern(text.to_owned(), full_match(text)?));
        }
        Ok(Self::Name(text.to_owned()))
    }

    fn text(&self) -> &str {
        match self {
            Self::AllLinear => "all-linear",
            Self::Name(text) | Self::Pattern(text, _) => text,
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::AllLinear => last_component(name) != OUTPUT_HEAD,
            Self::Name(end) => name.strip_suffix(end.as_str()).is_some_and(|rest| {
                // An empty entry would be the end of every path.
                !end.is_empty() && (rest.is_empty() || rest.ends_with('.'))
            }),
            Self::Pattern(_, regex) => regex.is_match(name),
        }
    }
}

fn full_match(pattern: &str) -> Result<Regex, AdapterError> {
    compile(pattern, &format!("^(?:{pattern})$"))
}

/// Compiles a key of `rank_pattern` or `alpha_pattern`: it must match a whole path or the end of one that
/// follows a dot.
pub(crate) fn end_match(pattern: &str) -> Result<Regex, AdapterError> {
    compile(pattern, &format!(r"^(?:.*\.)?(?:{pattern})$"))
}

fn compile(pattern: &str, whole: &str) -> Result<Regex, AdapterError> {
    let bad = |source| AdapterError::BadPattern { pattern: pattern.to_owned(), source: Box::new(source) };
    // Alone first, so that `a)|(b` is not made valid by the group around it.
    Regex::new(pattern).map_err(bad)?;
    Regex::new(whole).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Vec<LinearModule> {
        let module = |name: String| LinearModule { name, in_features: 4, out_features: 4 };
        let mut all = Vec::new();
        for layer in [0, 1, 11] {
            for end in ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"] {
                all.push(module(format!("model.layers.{layer}.{end}")));
            }
        }
        all.push(module("lm_head".to_owned()));
        all
    }

    fn names(targets: &Targets, exclude: &[&str]) -> Result<Vec<String>, String> {
        let exclude: Vec<_> = exclude.iter().map(|e| (*e).to_owned()).collect();
        select(targets, &exclude, &modules())
            .map(|all| all.into_iter().map(|m| m.name.replace("model.layers.", "")).collect())
            .map_err(|fault| fault.to_string())
    }

    fn list(entries: &[&str]) -> Targets {
        Targets::List(entries.iter().map(|e| (*e).to_owned()).collect())
    }

    #[test]
    fn all_linear_leaves_the_head_out() {
        assert_eq!(names(&Targets::from_text("All-Linear"), &[]).unwrap().len(), 9);
        assert_eq!(names(&list(&["lm_head"]), &[]).unwrap(), ["lm_head"]);
    }

    #[test]
    fn names_match_ends_after_a_dot() {
        let q = names(&list(&["q_proj"]), &[]).unwrap();
        assert_eq!(q, ["0.self_attn.q_proj", "1.self_attn.q_proj", "11.self_attn.q_proj"]);
        assert_eq!(names(&list(&["1.mlp.up_proj"]), &[]).unwrap(), ["1.mlp.up_proj"]);
        assert_eq!(names(&list(&["model.layers.0.mlp.up_proj"]), &[]).unwrap(), ["0.mlp.up_proj"]);
        assert_eq!(
            names(&list(&["q_proj", "proj"]), &[]).unwrap_err(),
            "adapter targets entry `proj` matches no linear layer; \
             layers here: `lm_head`, `q_proj`, `up_proj`, `v_proj`"
        );
        assert!(names(&list(&[""]), &[]).is_err());
    }

    #[test]
    fn patterns_match_whole_paths() {
        let upper = Targets::from_text(r"model\.layers\.(1|11)\..*up_proj");
        assert_eq!(names(&upper, &[]).unwrap(), ["1.mlp.up_proj", "11.mlp.up_proj"]);
        assert!(names(&Targets::from_text("up_proj"), &[]).is_err(), "a full match, not an end");
        assert_eq!(
            names(&list(&[r".*\.0\..*"]), &["v_proj"]).unwrap(),
            ["0.self_attn.q_proj", "0.mlp.up_proj"]
        );
        assert_eq!(names(&Targets::from_text("(q"), &[]).unwrap_err(), "`(q` is not a valid pattern");
        assert_eq!(names(&Targets::from_text("a)|(b"), &[]).unwrap_err(), "`a)|(b` is not a valid pattern");
    }

    #[test]
    fn exclusion() {
        assert_eq!(names(&Targets::AllLinear, &["q_proj", "v_proj"]).unwrap().len(), 3);
        assert!(
            names(&Targets::AllLinear, &["o_proj"])
                .unwrap_err()
                .starts_with("adapter exclude entry `o_proj`")
        );
        assert!(names(&list(&["q_proj"]), &["q_proj"]).unwrap_err().contains("select no layer"));
    }

    #[test]
    fn lists_are_short_when_that_is_exact() {
        let modules = modules();
        let of = |selected: Vec<&LinearModule>| {
            as_list(&selected.into_iter().map(|m| m.name.as_str()).collect(), &modules)
        };
        let all = select(&Targets::AllLinear, &[], &modules).unwrap();
        assert_eq!(of(all), ["q_proj", "up_proj", "v_proj"]);
        let some = select(&Targets::from_text(r".*\.1\..*"), &[], &modules).unwrap();
        assert_eq!(of(some).len(), 3);
        let one = select(&list(&["11.mlp.up_proj"]), &[], &modules).unwrap();
        assert_eq!(of(one), ["model.layers.11.mlp.up_proj"]);
    }
}
