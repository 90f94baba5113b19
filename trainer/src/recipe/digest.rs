//! One text and one hash for what a recipe decides.

use super::settings::Recipe;
use seedcorn_data::source::hash_text;

/// Tables that change where results go or what is shown, never a bit of the result.
const WITHOUT_EFFECT: [&str; 4] = ["output", "log", "checkpoint", "policy"];
/// What counts of `[parallel]`; it is written only where it has an effect. `parallel.tensor` moves the last bits too, but a run
/// may go on with another.
const PARALLEL_WITH_EFFECT: &str = "reduction";
/// The same of `[train]`: what is kept and what is computed again give the same bits.
const TRAIN_WITHOUT_EFFECT: [&str; 2] = ["activation", "memory_budget"];

impl Recipe {
    /// Writes the recipe with every default, in the order of the fields.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.table()).expect("a table of plain values can be written")
    }

    /// Writes the parts that decide the bits of the result: everything but `output`, `log`, `checkpoint`,
    /// `parallel` (but for `reduction = "fast"`), `[policy]`, stated licences, `train.activation` and `train.memory_budget`.
    pub fn canonical_toml(&self) -> String {
        canonical(self.table())
    }

    /// Returns the sha256 of [`Recipe::canonical_toml`], in lower-case hexadecimal digits.
    pub fn digest(&self) -> String {
        hash_text(&self.canonical_toml())
    }

    /// Returns the recipe as a TOML table, in the order of the fields.
    pub fn table(&self) -> toml::Table {
        toml::Table::try_from(self).expect("a recipe has only strings, numbers, lists and tables")
    }
}

fn canonical(mut table: toml::Table) -> String {
    keep_what_decides(&mut table);
    toml::to_string(&table).expect("a table of plain values can be written")
}

/// Drops what never changes a bit of the result from a recipe's table.
pub(crate) fn keep_what_decides(table: &mut toml::Table) {
    for key in WITHOUT_EFFECT {
        table.remove(key);
    }
    if let Some(parallel) = table.get_mut("parallel").and_then(toml::Value::as_table_mut) {
        parallel.retain(|key, _| key == PARALLEL_WITH_EFFECT);
        if parallel.is_empty() {
            table.remove("parallel");
        }
    }
    if let Some(train) = table.get_mut("train").and_then(toml::Value::as_table_mut) {
        train.retain(|key, _| !TRAIN_WITHOUT_EFFECT.contains(&key));
    }
    for source in sources(table) {
        source.remove("license");
    }
}

/// Lists the tables of a recipe that name a source.
fn sources(table: &mut toml::Table) -> Vec<&mut toml::Table> {
    let mut found = Vec::new();
    for (key, value) in table.iter_mut() {
        match (key.as_str(), value) {
            ("model", toml::Value::Table(model)) => found.push(model),
            ("data", toml::Value::Table(data)) => {
                let lists = data.iter_mut().filter_map(|(_, value)| value.as_array_mut());
                found.extend(lists.flatten().filter_map(toml::Value::as_table_mut));
            }
            _ => {}
        }
    }
    found
}

/// Returns the digest of a recipe that is written whole, as a lock holds it: also one that was written before
/// some key existed.
pub fn digest_of(table: &toml::Table) -> String {
    hash_text(&canonical(table.clone()))
}

/// Returns the dotted keys whose values differ between two TOML texts, each with its value in both
/// (`none` where it is absent).
pub fn differing_keys(a: &str, b: &str) -> Result<Vec<(String, String, String)>, toml::de::Error> {
    let mut left = Vec::new();
    let mut right = Vec::new();
    flatten("", &toml::Value::Table(toml::from_str(a)?), &mut left);
    flatten("", &toml::Value::Table(toml::from_str(b)?), &mut right);
    let find = |list: &[(String, String)], key: &str| {
        list.iter()
            .find(|(known, _)| known == key)
            .map_or_else(|| "none".to_owned(), |(_, value)| value.clone())
    };
    let mut differing = Vec::new();
    for (key, _) in left.iter().chain(&right) {
        let (was, is) = (find(&left, key), find(&right, key));
        if was != is && !differing.iter().any(|(known, _, _)| known == key) {
            differing.push((key.clone(), was, is));
        }
    }
    Ok(differing)
}

fn flatten(prefix: &str, value: &toml::Value, out: &mut Vec<(String, String)>) {
    let join = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                flatten(&join(key), value, out);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            for (index, value) in items.iter().enumerate() {
                flatten(&join(&index.to_string()), value, out);
            }
        }
        plain => out.push((prefix.to_owned(), plain.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_keys_that_differ() {
        let a = "x = 1\n[t]\nlr = 0.1\n[[d]]\ns = 'a'\n";
        let b = "x = 1\n[t]\nlr = 0.2\nw = 3\n[[d]]\ns = 'b'\n";
        let keys = differing_keys(a, b).expect("both are TOML");
        let names: Vec<_> = keys.iter().map(|(key, was, is)| format!("{key}: {was} -> {is}")).collect();
        assert_eq!(names, ["t.lr: 0.1 -> 0.2", "d.0.s: \"a\" -> \"b\"", "t.w: none -> 3"]);
        assert!(differing_keys(a, a).expect("TOML").is_empty());
    }
}
