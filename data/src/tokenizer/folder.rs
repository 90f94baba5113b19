//! Reads a tokenizer from a folder in Hugging Face layout.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use super::{Tokenizer, TokenizerParts, load_inner};
use crate::error::{Error, Result};
use crate::template::Date;

impl Tokenizer {
    /// Reads `tokenizer.json` and, where they are, `tokenizer_config.json`, `special_tokens_map.json` and
    /// `chat_template.jinja` (which goes before the template in the configuration).
    ///
    /// BOS is added to plain texts when `add_bos_token` says so, or, without that key, when the tokenizer's
    /// own post-processor does; EOS likewise.
    ///
    /// # Errors
    /// Files that cannot be read, and what [`Tokenizer::from_parts`] reports.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let tokenizer_json = fs_err::read_to_string(folder.join("tokenizer.json"))?;
        let config = read_object(&folder.join("tokenizer_config.json"))?;
        let map = read_object(&folder.join("special_tokens_map.json"))?;
        let token = |role| token_text(&config[role]).or_else(|| token_text(&map[role]));
        let inner = load_inner(&tokenizer_json)?;
        let mut parts = TokenizerParts {
            bos: token("bos_token"),
            eos: token("eos_token"),
            pad: token("pad_token"),
            unk: token("unk_token"),
            chat_template: read_optional(&folder.join("chat_template.jinja"))?
                .or_else(|| template_text(&config["chat_template"])),
            ..TokenizerParts::default()
        };
        let added = inner.encode("", true).map(|e| e.get_ids().to_vec()).unwrap_or_default();
        let id = |token: &Option<String>| token.as_ref().and_then(|token| inner.token_to_id(token));
        parts.add_bos = config["add_bos_token"]
            .as_bool()
            .unwrap_or_else(|| !added.is_empty() && added.first().copied() == id(&parts.bos));
        // One token cannot be both ends: a lone BOS is not taken for an EOS.
        parts.add_eos = config["add_eos_token"].as_bool().unwrap_or_else(|| {
            added.len() > usize::from(parts.add_bos) && added.last().copied() == id(&parts.eos)
        });
        parts.tokenizer_json = tokenizer_json;
        Self::assemble(inner, parts, Date::default())
    }
}

/// Text of a file, `None` when there is no such file.
fn read_optional(path: &Path) -> Result<Option<String>> {
    match fs_err::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

/// A JSON file, null when there is no such file.
fn read_object(path: &Path) -> Result<Value> {
    match read_optional(path)? {
        None => Ok(Value::Null),
        Some(text) => serde_json::from_str(&text).map_err(|fault| Error::BadTokenizer {
            what: format!("`{}`", path.display()),
            reason: fault.to_string(),
        }),
    }
}

/// A token entry is its text, or an object with `content`.
fn token_text(entry: &Value) -> Option<String> {
    entry.as_str().or_else(|| entry["content"].as_str()).map(str::to_owned)
}

/// A template entry is its text, or a list of named ones; ours is `default`.
fn template_text(entry: &Value) -> Option<String> {
    if let Some(text) = entry.as_str() {
        return Some(text.to_owned());
    }
    let named = entry.as_array()?.iter().find(|named| named["name"] == "default")?;
    named["template"].as_str().map(str::to_owned)
}
