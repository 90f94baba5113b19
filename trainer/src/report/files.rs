//! Files and digests of a lock, wherever in it they stand: a table with `name`, `bytes` and `sha256` is a file, a
//! text whose key ends with `sha256` or `digest` is a digest.

use serde::Serialize;
use toml::{Table, Value};

use super::numbers::grouped;

/// A file and its hash.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FileView {
    /// What it belongs to.
    of: String,
    name: String,
    bytes: String,
    sha256: String,
}

/// A digest of something that is no file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct DigestView {
    of: String,
    sha256: String,
}

/// All hashes of a lock.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Hashes {
    inputs: Vec<FileView>,
    outputs: Vec<FileView>,
    digests: Vec<DigestView>,
}

impl Hashes {
    /// Collects them in the order in which they stand in the lock.
    pub(super) fn of(lock: &Table) -> Hashes {
        let mut found = Hashes::default();
        for (key, value) in lock.iter().filter(|(key, _)| *key != "recipe") {
            found.walk(key, value);
        }
        found
    }

    fn walk(&mut self, path: &str, value: &Value) {
        match value {
            Value::Table(table) => {
                if let Some(file) = file(path, table) {
                    let outputs = path.starts_with("results");
                    // No page holds its own hash.
                    if outputs && file.name == super::FILE {
                        return;
                    }
                    return if outputs { &mut self.outputs } else { &mut self.inputs }.push(file);
                }
                for (key, value) in table {
                    self.walk(&format!("{path}.{key}"), value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(path, item)),
            // The hash of what is not there, like the tokenizer of a model without one, is empty.
            Value::String(text)
                if !text.is_empty() && (path.ends_with("sha256") || path.ends_with("digest")) =>
            {
                self.digests.push(DigestView { of: meaning(path).to_owned(), sha256: text.clone() });
            }
            _ => {}
        }
    }
}

fn file(path: &str, table: &Table) -> Option<FileView> {
    Some(FileView {
        of: meaning(path).to_owned(),
        name: table.get("name")?.as_str()?.to_owned(),
        bytes: grouped(u64::try_from(table.get("bytes")?.as_integer()?).ok()?),
        sha256: table.get("sha256")?.as_str()?.to_owned(),
    })
}

/// Says what a place of the lock holds; a place without a name of its own speaks for itself.
fn meaning(path: &str) -> &str {
    match path {
        "recipe_digest" => "recipe",
        "model.files" => "base model",
        "model.adapter_files" => "adapter it began from",
        "model.tokenizer_sha256" => "tokenizer",
        "model.chat_template_sha256" => "chat template",
        "data.train.files" => "training data",
        "data.eval.files" => "held-out data",
        "samples.order.train_sha256" => "order of the training samples",
        "samples.order.eval_sha256" => "held-out samples",
        "recipe_file" => "file of the recipe",
        "results.files" => "run",
        "results.adapter_sha256" => "trained adapter",
        "results.early.adapter_sha256" => "adapter after one of the first steps",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_digests_are_found_wherever_they_stand() {
        let lock: Table = toml::from_str(
            "recipe_digest = 'r'\nother_digest = ''\n[recipe.model]\nsha256 = 'not this'\n[model]\ntokenizer_sha256 = 't'\n\
             [[model.files]]\nname = 'w'\nbytes = 1234\nsha256 = 'h1'\n[[data.train]]\n\
             [[data.train.files]]\nname = 'd'\nbytes = 1\nsha256 = 'h2'\n\
             [results]\nfiles = [{ name = 'm', bytes = 2, sha256 = 'h3' }, { name = 'report.html', bytes = 1, sha256 = 'x' }]\n",
        )
        .expect("TOML");
        let found = Hashes::of(&lock);
        let shown =
            |files: &[FileView]| files.iter().map(|file| format!("{file:?}")).collect::<Vec<_>>().concat();
        assert_eq!(found.inputs.len(), 2, "{found:?}");
        assert!(shown(&found.inputs).contains("base model\", name: \"w\", bytes: \"1,234\", sha256: \"h1\""));
        assert!(shown(&found.inputs).contains("training data\", name: \"d\""));
        assert!(shown(&found.outputs).contains("of: \"run\", name: \"m\""));
        assert_eq!(found.outputs.len(), 1, "{found:?}");
        let digests: Vec<_> =
            found.digests.iter().map(|digest| (digest.of.as_str(), &*digest.sha256)).collect();
        assert_eq!(digests, [("recipe", "r"), ("tokenizer", "t")]);
    }
}
