//! Licences in a recipe: those it states, and those its policy names.

use super::error::RecipeError;
use super::file::PolicyFile;
use super::settings::Policy;
use crate::provenance::Licence;
use crate::recipe::Unknown;

/// Reads a stated licence in the spelling of its list.
pub(super) fn license(key: &str, text: &str) -> Result<String, RecipeError> {
    match Licence::known(text) {
        Some(licence) => Ok(licence.to_string()),
        None => Err(RecipeError::UnknownLicence { key: key.to_owned(), found: shortened(text) }),
    }
}

/// Reads `[policy]`; `None` where the recipe has none.
pub(super) fn policy(file: &PolicyFile) -> Result<Option<Policy>, RecipeError> {
    if *file == PolicyFile::default() {
        return Ok(None);
    }
    let list = |key: &str, typed: &Option<Vec<String>>| -> Result<Vec<String>, RecipeError> {
        let entries = typed.iter().flatten().enumerate();
        entries.map(|(at, text)| single(&format!("policy.{key}.{at}"), text)).collect()
    };
    let (allow, deny) = (list("allow", &file.allow)?, list("deny", &file.deny)?);
    if file.allow.as_ref().is_some_and(Vec::is_empty) {
        let found = "[]".to_owned();
        return Err(RecipeError::Range {
            key: "policy.allow".to_owned(),
            must: "at least one licence",
            found,
        });
    }
    // A list of what may be used leaves no room for what nobody knows.
    let unknown = file.unknown.unwrap_or(if allow.is_empty() { Unknown::Warn } else { Unknown::Refuse });
    Ok(Some(Policy { allow, deny, unknown }))
}

/// Reads an entry of a list: one licence, no expression.
fn single(key: &str, text: &str) -> Result<String, RecipeError> {
    let licence = license(key, text)?;
    if licence.contains(' ') {
        let found = format!("`{}`", shortened(text));
        return Err(RecipeError::Range { key: key.to_owned(), must: "one licence, no expression", found });
    }
    Ok(licence)
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
