//! A source as it was typed, and where it leads from here.

use super::RecipeError;
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};

/// Where a model, an adapter or data come from: `pypi:...`, `hf:...` or a path.
///
/// Serialises as it was typed, so that a lock does not name the folders of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    typed: String,
    path: Option<PathBuf>,
}

impl Location {
    /// Reads `typed`; a relative path is taken from `folder`.
    ///
    /// # Errors
    /// [`RecipeError::UnknownScheme`] for `word:...` with a word that names no kind of source, and
    /// [`RecipeError::Range`] for an empty text.
    pub fn new(key: &str, typed: &str, folder: &Path) -> Result<Location, RecipeError> {
        if typed.trim().is_empty() {
            return Err(RecipeError::Range {
                key: key.to_owned(),
                must: "not empty",
                found: "``".to_owned(),
            });
        }
        let path = match scheme(typed) {
            Some(_) if is_remote(typed) => None,
            Some(_) => {
                return Err(RecipeError::UnknownScheme { key: key.to_owned(), found: typed.to_owned() });
            }
            None => Some(folder.join(typed)),
        };
        Ok(Location { typed: typed.to_owned(), path })
    }

    /// Returns the text of the recipe.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// Returns the local path, or `None` for a source that is fetched.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Returns the text to open: the path from the working folder, or the source that is fetched.
    pub fn resolved(&self) -> String {
        self.path.as_ref().map_or_else(|| self.typed.clone(), |path| path.to_string_lossy().into_owned())
    }
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.typed)
    }
}

/// Whether a source is fetched rather than found on this machine.
fn is_remote(typed: &str) -> bool {
    matches!(scheme(typed), Some("pypi" | "hf"))
}

/// Whether a text is a path, rather than a source of a known or unknown kind.
pub(super) fn is_path(typed: &str) -> bool {
    scheme(typed).is_none()
}

/// Returns the word before the first colon when it can only be meant as a kind of source. One letter is a
/// drive, and a slash before the colon makes a path.
fn scheme(typed: &str) -> Option<&str> {
    let (word, _) = typed.split_once(':')?;
    let is_word = word.len() > 1
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "+-".contains(c));
    is_word.then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(typed: &str) -> Result<Location, RecipeError> {
        Location::new("model.source", typed, Path::new("/recipes/x"))
    }

    #[test]
    fn paths_start_at_the_folder_and_remote_sources_stay() {
        assert_eq!(at("../m").expect("path").resolved(), "/recipes/x/../m");
        assert_eq!(at("/m").expect("path").resolved(), "/m");
        assert_eq!(at("C:/m").expect("path").typed(), "C:/m");
        assert_eq!(at("./a:b").expect("path").path(), Some(Path::new("/recipes/x/./a:b")));
        assert_eq!(at("hf:o/n@main").expect("remote").resolved(), "hf:o/n@main");
        assert_eq!(at("pypi:a==1/b.gguf").expect("remote").path(), None);
    }

    #[test]
    fn refuses_what_it_cannot_fetch() {
        let error = at("s3://bucket/model").expect_err("unknown");
        assert_eq!(error.to_string(), "`model.source` has a source of an unknown kind: `s3://bucket/model`");
        assert!(at(" ").is_err());
    }
}
