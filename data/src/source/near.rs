//! Finds the names a user may have meant.

/// Names offered at most.
const OFFERED: usize = 5;
/// Jaro-Winkler similarity from which a name is worth offering.
const NEAR: f64 = 0.72;

/// Picks up to five names that are near `wanted`, the nearest first.
///
/// The last path component counts as much as the whole path, so a right name in the wrong folder is
/// found too.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut scored: Vec<(f64, &str)> =
        names.map(|name| (score(wanted, name), name)).filter(|(score, _)| *score >= NEAR).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(OFFERED).map(|(_, name)| name.to_owned()).collect()
}

/// Quotes names for a message, the first eight of them.
pub(super) fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn score(wanted: &str, name: &str) -> f64 {
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_lowercase();
    let whole = strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase());
    whole.max(strsim::jaro_winkler(&last(wanted), &last(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_the_right_name_in_another_folder_and_nothing_unrelated() {
        let names = ["pkg/data/faq-alpaca.jsonl", "pkg/data/faq-sharegpt.jsonl", "x/METADATA"];
        assert_eq!(nearest("faq-alpaka.jsonl", names.into_iter())[0], "pkg/data/faq-alpaca.jsonl");
        assert!(nearest("zzz", names.into_iter()).is_empty());
        let many: Vec<String> = (0..50).map(|i| format!("model-{i:05}.safetensors")).collect();
        assert_eq!(nearest("model.safetensors", many.iter().map(String::as_str)).len(), OFFERED);
    }
}
