//! From text to [`RecipeFile`], with errors that name the key, the file and the line.

use super::error::{At, RecipeError};
use super::file::RecipeFile;
use super::schema::Node;
use super::set;
use super::suggest::nearest;
use serde::Deserialize;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A recipe is written by hand; more than this is not one.
const LIMIT_BYTES: u64 = 1 << 20;

/// What was typed, and from where its paths start.
#[derive(Clone, Debug)]
pub struct Typed {
    /// The keys.
    pub file: RecipeFile,
    /// Folder of the recipe.
    pub folder: PathBuf,
}

/// Reads a recipe file and applies `key=value` overrides in order.
pub fn read(path: &Path, overrides: &[String]) -> Result<Typed, RecipeError> {
    let fail = |source| RecipeError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs_err::File::open(path).map_err(fail)?;
    let bytes = file.metadata().map_err(fail)?.len();
    if bytes > LIMIT_BYTES {
        return Err(RecipeError::TooLarge { path: path.to_owned(), bytes, limit: LIMIT_BYTES });
    }
    file.take(LIMIT_BYTES).read_to_string(&mut text).map_err(fail)?;
    parse(&text, path, overrides)
}

/// Parses the text of the recipe at `path` and applies `key=value` overrides in order.
pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Typed, RecipeError> {
    let schema = Node::of::<RecipeFile>();
    let origin = Origin::File { path, text };
    let tree = DeTable::parse(text).map_err(|error| origin.syntax(&error))?;
    check_table(tree.get_ref(), &schema, "", &origin)?;
    let file = RecipeFile::deserialize(toml::Deserializer::from(tree.clone()))
        .map_err(|error| origin.wrong_type(&error, &key_at(tree.get_ref(), error.span())))?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    if overrides.is_empty() {
        return Ok(Typed { file, folder });
    }
    let mut table: toml::Table = toml::from_str(text).map_err(|error| origin.syntax(&error))?;
    let mut file = file;
    for text in overrides {
        set::apply(&mut table, &schema, text)?;
        let origin = Origin::Set { text };
        let key = text.split('=').next().unwrap_or_default().trim();
        file = RecipeFile::deserialize(table.clone()).map_err(|error| origin.wrong_type(&error, key))?;
    }
    Ok(Typed { file, folder })
}

pub(super) enum Origin<'a> {
    File { path: &'a Path, text: &'a str },
    Set { text: &'a str },
}

impl Origin<'_> {
    fn at(&self, span: Option<Range<usize>>) -> At {
        match self {
            Origin::File { path, text } => {
                let before = text.get(..span.map_or(0, |span| span.start)).unwrap_or(text);
                let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
                At::File { path: (*path).to_owned(), line }
            }
            Origin::Set { text } => At::Set((*text).to_owned()),
        }
    }

    pub(super) fn syntax(&self, error: &toml::de::Error) -> RecipeError {
        RecipeError::Syntax { at: self.at(error.span()), message: error.message().replace('\n', "; ") }
    }

    /// Words an error of serde itself, for the few types that the schema leaves to serde.
    fn wrong_type(&self, error: &toml::de::Error, key: &str) -> RecipeError {
        let at = self.at(error.span());
        let message = error.message();
        let split = message
            .split_once(": ")
            .filter(|(kind, _)| kind.starts_with("invalid"))
            .and_then(|(_, rest)| rest.split_once(", expected "));
        match split {
            Some((found, expected)) => RecipeError::WrongType {
                key: key.to_owned(),
                at,
                expected: expected.to_owned(),
                found: found.to_owned(),
            },
            None => RecipeError::Syntax { at, message: format!("`{key}`: {message}") },
        }
    }
}

pub(super) fn joined(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

pub(super) fn unknown_key(schema: &Node, prefix: &str, key: &str, at: At) -> RecipeError {
    let near = nearest(key, schema.keys()).map(|near| joined(prefix, near)).or_else(|| elsewhere(key));
    let known = schema.keys().map(|known| joined(prefix, known)).collect();
    RecipeError::UnknownKey { key: joined(prefix, key), at, near, known }
}

/// Finds a key of exactly this name in another table: `rank` at the top was meant as `adapter.rank`.
fn elsewhere(key: &str) -> Option<String> {
    let ending = format!(".{key}");
    let mut found = super::known_keys().into_iter().filter(|known| known.ends_with(&ending));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn check_table(
    table: &DeTable<'_>,
    schema: &Node,
    prefix: &str,
    origin: &Origin<'_>,
) -> Result<(), RecipeError> {
    for (key, value) in table {
        let at = || origin.at(Some(key.span()));
        let node =
            schema.child(key.get_ref()).ok_or_else(|| unknown_key(schema, prefix, key.get_ref(), at()))?;
        check_value(value, node, &joined(prefix, key.get_ref()), origin)?;
    }
    Ok(())
}

pub(super) fn check_value(
    value: &Spanned<DeValue<'_>>,
    node: &Node,
    key: &str,
    origin: &Origin<'_>,
) -> Result<(), RecipeError> {
    let at = || origin.at(Some(value.span()));
    let expected = match (node, value.get_ref()) {
        (Node::Table(_), DeValue::Table(table)) => return check_table(table, node, key, origin),
        (Node::List(item), DeValue::Array(values)) => {
            return values
                .iter()
                .enumerate()
                .try_for_each(|(index, value)| check_value(value, item, &format!("{key}.{index}"), origin));
        }
        (Node::Choice(allowed), DeValue::String(word)) => {
            if allowed.contains(&word.as_ref()) {
                return Ok(());
            }
            return Err(RecipeError::UnknownWord {
                key: key.to_owned(),
                at: at(),
                found: word.to_string(),
                allowed: allowed.to_vec(),
                near: nearest(word, allowed.iter().copied()),
            });
        }
        (Node::Whole, DeValue::Integer(whole)) if !whole.as_str().starts_with('-') => return Ok(()),
        (Node::Bool, DeValue::Boolean(_))
        | (Node::Number, DeValue::Integer(_) | DeValue::Float(_))
        | (Node::Text, DeValue::String(_))
        | (Node::Map, DeValue::Table(_))
        | (Node::Free, _) => return Ok(()),
        (Node::Table(_) | Node::Map, _) => "a table",
        (Node::List(_), _) => "a list",
        (Node::Choice(_) | Node::Text, _) => "a string",
        (Node::Whole, _) => "a whole number that is not negative",
        (Node::Number, _) => "a number",
        (Node::Bool, _) => "`true` or `false`",
    };
    let found = described(value.get_ref());
    Err(RecipeError::WrongType { key: key.to_owned(), at: at(), expected: expected.to_owned(), found })
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let short: String = text.chars().take(40).collect();
            format!("the string `{short}`")
        }
        DeValue::Integer(number) => format!("`{number}`"),
        DeValue::Float(number) => format!("`{number}`"),
        DeValue::Boolean(truth) => format!("`{truth}`"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Finds the innermost key whose value holds `span`. Tables are searched whole: the span of a table with a
/// header is that of the header alone.
fn key_at(table: &DeTable<'_>, span: Option<Range<usize>>) -> String {
    let place = span.map_or(0, |span| span.start);
    find_in_table(table, place, "").unwrap_or_default()
}

fn find_in_table(table: &DeTable<'_>, place: usize, prefix: &str) -> Option<String> {
    table.iter().find_map(|(key, value)| find(value, place, &joined(prefix, key.get_ref())))
}

fn find(value: &Spanned<DeValue<'_>>, place: usize, key: &str) -> Option<String> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => find_in_table(table, place, key),
        DeValue::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| find(item, place, &format!("{key}.{index}")))
        }
        _ => None,
    };
    inner.or_else(|| value.span().contains(&place).then(|| key.to_owned()))
}
