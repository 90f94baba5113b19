//! `--set key=value`: one setting on the command line in place of the one in the file.

use super::error::{At, RecipeError};
use super::location::is_path;
use super::parse::{Origin, check_value, joined, unknown_key};
use super::schema::Node;
use serde::Deserialize;
use toml::de::DeValue;
use toml::{Spanned, Table, Value};

/// Applies `text`, written `key=value` with dots in the key, to the table of a recipe.
///
/// The value is TOML; a word that is not TOML is a string where the key takes one. Paths start at the working
/// folder, because that is where they are written.
pub(super) fn apply(table: &mut Table, schema: &Node, text: &str) -> Result<(), RecipeError> {
    let (key, raw) = text.split_once('=').ok_or_else(|| RecipeError::SetForm { text: text.to_owned() })?;
    let (key, raw) = (key.trim(), raw.trim());
    let (parts, node) = split(key, schema, text)?;
    let mut value = parse_value(&node, key, raw, text)?;
    let last = parts.last().map_or("", String::as_str);
    start_paths_here(last, &mut value)?;
    let mut root = Value::Table(std::mem::take(table));
    let done = insert(&mut root, Some(schema), &parts, value, text, "");
    if let Value::Table(filled) = root {
        *table = filled;
    }
    done
}

/// Splits a key at its dots and finds what it may hold. Below a free table the rest of the key is one name,
/// since module and file names have dots of their own.
fn split(key: &str, schema: &Node, text: &str) -> Result<(Vec<String>, Node), RecipeError> {
    let parts: Vec<&str> = key.split('.').map(str::trim).collect();
    let mut node = schema;
    let mut walked = Vec::new();
    for (depth, part) in parts.iter().enumerate() {
        if *node == Node::Map {
            walked.push(parts[depth..].join("."));
            return Ok((walked, Node::Free));
        }
        let unknown = || unknown_key(node, &parts[..depth].join("."), part, At::Set(text.to_owned()));
        node = node.child(part).ok_or_else(unknown)?;
        walked.push((*part).to_owned());
    }
    Ok((walked, node.clone()))
}

fn parse_value(node: &Node, key: &str, raw: &str, text: &str) -> Result<Value, RecipeError> {
    let origin = Origin::Set { text };
    let parsed = match (DeValue::parse(raw), node) {
        // `--set output=7` means the text 7.
        (Ok(value), Node::Text) if !value.get_ref().is_str() => return Ok(Value::String(raw.to_owned())),
        (Ok(value), _) => value,
        (Err(_), Node::Text | Node::Choice(_) | Node::Free) => {
            Spanned::new(0..raw.len(), DeValue::String(raw.into()))
        }
        (Err(error), _) if raw.starts_with(['[', '{', '"', '\'']) => return Err(origin.syntax(&error)),
        // A bare word where no string fits: say what would.
        (Err(_), _) => Spanned::new(0..raw.len(), DeValue::String(raw.into())),
    };
    check_value(&parsed, node, key, &origin)?;
    Value::deserialize(toml::de::ValueDeserializer::from(parsed)).map_err(|error| origin.syntax(&error))
}

fn start_paths_here(key: &str, value: &mut Value) -> Result<(), RecipeError> {
    match value {
        Value::String(text) if matches!(key, "output" | "source" | "from") && !text.is_empty() => {
            if is_path(text) {
                let path =
                    std::path::absolute(&*text).map_err(|source| RecipeError::WorkingFolder { source })?;
                *text = path.to_string_lossy().into_owned();
            }
            Ok(())
        }
        Value::Table(table) => table.iter_mut().try_for_each(|(key, value)| start_paths_here(key, value)),
        Value::Array(items) => items.iter_mut().try_for_each(|item| start_paths_here("", item)),
        _ => Ok(()),
    }
}

fn insert(
    place: &mut Value,
    node: Option<&Node>,
    parts: &[String],
    value: Value,
    text: &str,
    walked: &str,
) -> Result<(), RecipeError> {
    let Some((first, rest)) = parts.split_first() else {
        *place = value;
        return Ok(());
    };
    let child = node.and_then(|node| node.child(first));
    let inner = match place {
        Value::Array(list) => item(list, first, walked, text)?,
        Value::Table(table) => table.entry(first.clone()).or_insert_with(|| empty(child)),
        _ => return Err(RecipeError::SetForm { text: text.to_owned() }),
    };
    insert(inner, child, rest, value, text, &joined(walked, first))
}

fn empty(node: Option<&Node>) -> Value {
    match node {
        Some(Node::List(_)) => Value::Array(Vec::new()),
        _ => Value::Table(Table::new()),
    }
}

/// Returns the item at `index`; the index one past the end adds an item.
fn item<'a>(
    list: &'a mut Vec<Value>,
    index: &str,
    name: &str,
    text: &str,
) -> Result<&'a mut Value, RecipeError> {
    let len = list.len();
    let fail = || RecipeError::SetIndex {
        text: text.to_owned(),
        list: name.to_owned(),
        index: index.to_owned(),
        len,
    };
    let at: usize = index.parse().map_err(|_| fail())?;
    if at == len {
        list.push(Value::Table(Table::new()));
    }
    list.get_mut(at).ok_or_else(fail)
}
