//! The `tojson` filter of transformers: Python's `json.dumps(x, ensure_ascii=False)`.

use std::fmt::Write;
use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Writes a value as JSON, without HTML escapes; knows `indent`, `ensure_ascii`, `sort_keys`, `separators`.
#[expect(clippy::needless_pass_by_value, reason = "the engine hands keyword arguments over")]
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let mut tree = serde_json::to_value(value).map_err(fault)?;
    if sort == Some(true) {
        tree.sort_all_objects();
    }
    let mut bytes = Vec::new();
    match (indent, separators.as_deref()) {
        (Some(width), None) => {
            let spaces = " ".repeat(width.min(64));
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            tree.serialize(&mut Serializer::with_formatter(&mut bytes, formatter)).map_err(fault)?;
        }
        (None, None) => write_spaced(&mut bytes, &tree, ", ", ": ")?,
        (None, Some([item, key])) => write_spaced(&mut bytes, &tree, item, key)?,
        _ => {
            let reason = "`tojson` takes two `separators`, and not beside `indent`";
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
    }
    let text = String::from_utf8(bytes).map_err(fault)?;
    Ok(Value::from(if ascii == Some(true) { escape(&text) } else { text }))
}

fn fault(fault: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::BadSerialization, "cannot serialize to JSON").with_source(fault)
}

/// Only strings hold characters beyond ASCII, so they can be escaped after the fact.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut units = [0; 2];
    for letter in text.chars() {
        if letter.is_ascii() {
            escaped.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut units) {
                write!(escaped, "\\u{unit:04x}").expect("writing to a string does not fail");
            }
        }
    }
    escaped
}

fn write_spaced(bytes: &mut Vec<u8>, tree: &serde_json::Value, item: &str, key: &str) -> Result<(), Error> {
    tree.serialize(&mut Serializer::with_formatter(bytes, Spaced { item, key })).map_err(fault)
}

/// One line, with Python's separators.
struct Spaced<'a> {
    item: &'a str,
    key: &'a str,
}

impl Formatter for Spaced<'_> {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(self.item.as_bytes()) }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(self.item.as_bytes()) }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key.as_bytes())
    }
}
