//! The name that was probably meant.

/// Returns the known name nearest to `typed`, when one is near enough to be worth offering.
///
/// Near means at most a third of the letters differ, or that one name begins with the other.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let score = |name: &str| {
        let distance = strsim::damerau_levenshtein(&typed, &name.to_lowercase());
        let begins = typed.len() >= 3 && (name.starts_with(&typed) || typed.starts_with(name));
        let allowed = (typed.len().max(name.len()) / 3).max(1);
        (distance <= allowed || begins).then_some(distance)
    };
    known
        .into_iter()
        .filter_map(|name| score(name).map(|distance| (distance, name)))
        .min_by(|a, b| a.0.cmp(&b.0))
        .map(|(_, name)| name)
}

/// Writes names as `` `a`, `b`, `c` ``.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_near_name_and_only_that() {
        let known = ["rank", "alpha", "rslora", "warmup_steps"];
        assert_eq!(nearest("rnak", known), Some("rank"));
        assert_eq!(nearest("Alpah", known), Some("alpha"));
        assert_eq!(nearest("warmup", known), Some("warmup_steps"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn lists_in_backticks() {
        assert_eq!(list(["a", "b"]), "`a`, `b`");
    }
}
