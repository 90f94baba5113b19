//! Record formats: what a record's fields mean.
//!
//! [`Format::parse`] turns a [`Record`] into an [`Example`]: a conversation, a prompt with its completion,
//! a text, or ready token ids. Nothing is rendered or tokenized here.

mod chat;
mod read;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Place, Result};
pub(crate) use chat::message;
pub(crate) use read::kind;
pub use read::{Record, RecordFile};

/// How the fields of a record are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `messages` of {role, content}, or sharegpt's `conversations` of {from, value}.
    Chat,
    /// Alpaca: `instruction`, `output`, optionally `input` and `system`.
    Instruction,
    /// `prompt` and `completion`.
    Completion,
    /// `text`.
    Text,
    /// Ready `input_ids`, optionally `labels`.
    Tokens,
}

/// A record, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// Messages as the chat template gets them: each has `role` and `content`, and what else it had.
    Chat(Vec<Map<String, Value>>),
    /// An alpaca record.
    Instruction {
        /// What to do.
        instruction: String,
        /// With what; may be empty.
        input: String,
        /// The answer.
        output: String,
        /// A system message.
        system: Option<String>,
    },
    /// A prompt and what follows it.
    Completion {
        /// Masked by default.
        prompt: String,
        /// Trained.
        completion: String,
    },
    /// A text, all trained.
    Text(String),
    /// Token ids, with labels that are not shifted (-100 is masked).
    Tokens {
        /// The ids.
        input_ids: Vec<u32>,
        /// One label for each id.
        labels: Vec<i32>,
    },
}

impl Format {
    /// The name used in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Instruction => "instruction",
            Self::Completion => "completion",
            Self::Text => "text",
            Self::Tokens => "tokens",
        }
    }

    /// Reads a record's fields. `vocab` bounds the ids of [`Format::Tokens`].
    ///
    /// # Errors
    /// A missing field, a field of another type, an unknown role, an id outside the vocabulary.
    pub fn parse(self, record: &Record, vocab: usize) -> Result<Example> {
        let text = |field| required(self, record, field);
        match self {
            Self::Chat => chat::parse(record).map(Example::Chat),
            Self::Instruction => Ok(Example::Instruction {
                instruction: text("instruction")?,
                input: optional(record, "input")?.unwrap_or_default(),
                output: text("output")?,
                system: optional(record, "system")?.filter(|system| !system.is_empty()),
            }),
            Self::Completion => {
                Ok(Example::Completion { prompt: text("prompt")?, completion: text("completion")? })
            }
            Self::Text => text("text").map(Example::Text),
            Self::Tokens => tokens(record, vocab),
        }
    }
}

/// The error of a record that has none of `fields`.
fn missing(format: Format, record: &Record, fields: &[&'static str]) -> Error {
    Error::MissingField {
        place: record.place.clone(),
        format: format.name(),
        fields: fields.to_vec(),
        present: record.fields.keys().cloned().collect(),
    }
}

fn wrong(place: &Place, field: impl Into<String>, expected: &'static str, got: &Value) -> Error {
    Error::WrongType { place: place.clone(), field: field.into(), expected, got: kind(got) }
}

/// A string field; null counts as absent.
fn optional(record: &Record, field: &'static str) -> Result<Option<String>> {
    match record.fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(&record.place, field, "a string", other)),
    }
}

fn required(format: Format, record: &Record, field: &'static str) -> Result<String> {
    match record.fields.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong(&record.place, field, "a string", other)),
        None => Err(missing(format, record, &[field])),
    }
}

fn tokens(record: &Record, vocab: usize) -> Result<Example> {
    let ids =
        integers(record, "input_ids")?.ok_or_else(|| missing(Format::Tokens, record, &["input_ids"]))?;
    let labels = integers(record, "labels")?.unwrap_or_else(|| ids.clone());
    if ids.len() != labels.len() {
        let place = record.place.clone();
        return Err(Error::LabelCount { place, ids: ids.len(), labels: labels.len() });
    }
    // Labels are i32, so no vocabulary reaches beyond its range.
    let limit = vocab.min(i32::MAX as usize) as i64;
    let outside = |field, id: i64| Error::IdOutOfRange { place: record.place.clone(), field, id, vocab };
    let input_ids = ids
        .iter()
        .map(|&id| if (0..limit).contains(&id) { Ok(id as u32) } else { Err(outside("input_ids", id)) })
        .collect::<Result<_>>()?;
    let labels = labels
        .iter()
        .map(|&id| {
            let known = id == i64::from(crate::batch::IGNORE) || (0..limit).contains(&id);
            if known { Ok(id as i32) } else { Err(outside("labels", id)) }
        })
        .collect::<Result<_>>()?;
    Ok(Example::Tokens { input_ids, labels })
}

/// A list of integers; null counts as absent.
fn integers(record: &Record, field: &'static str) -> Result<Option<Vec<i64>>> {
    const EXPECTED: &str = "a list of integers";
    match record.fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(values)) => values
            .iter()
            .map(|value| value.as_i64().ok_or_else(|| wrong(&record.place, field, EXPECTED, value)))
            .collect::<Result<Vec<_>>>()
            .map(Some),
        Some(other) => Err(wrong(&record.place, field, EXPECTED, other)),
    }
}
