//! Conversations: `messages`, or sharegpt's `conversations`.

use serde_json::{Map, Value};

use super::{Format, Record, missing, optional, wrong};
use crate::error::{Error, Result};

const ROLES: &[&str] = &["system", "user", "assistant", "tool"];
const SHAREGPT_ROLES: &[&str] = &["human", "user", "gpt", "assistant", "system"];

/// Names of the two fields of a message, and its roles.
struct Dialect {
    list: &'static str,
    role: &'static str,
    content: &'static str,
    roles: &'static [&'static str],
}

const MESSAGES: Dialect = Dialect { list: "messages", role: "role", content: "content", roles: ROLES };
const SHAREGPT: Dialect =
    Dialect { list: "conversations", role: "from", content: "value", roles: SHAREGPT_ROLES };

/// Reads the messages of a record, in the roles a chat template knows.
pub(super) fn parse(record: &Record) -> Result<Vec<Map<String, Value>>> {
    let dialect = [MESSAGES, SHAREGPT].into_iter().find(|dialect| record.fields.contains_key(dialect.list));
    let Some(dialect) = dialect else {
        return Err(missing(Format::Chat, record, &["messages", "conversations"]));
    };
    let list = match record.fields.get(dialect.list) {
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(Value::Array(_)) | None => {
            return Err(Error::WrongType {
                place: record.place.clone(),
                field: dialect.list.to_owned(),
                expected: "a list of messages",
                got: "an empty list",
            });
        }
        Some(other) => return Err(wrong(&record.place, dialect.list, "a list of messages", other)),
    };
    let mut messages = Vec::with_capacity(list.len() + 1);
    for (index, message) in list.iter().enumerate() {
        messages.push(read_message(record, &dialect, index, message)?);
    }
    if dialect.list == SHAREGPT.list && messages[0]["role"] != "system" {
        // Sharegpt files keep the system message beside the list as often as in it.
        if let Some(system) = optional(record, "system")?.filter(|system| !system.is_empty()) {
            messages.insert(0, message("system", system));
        }
    }
    Ok(messages)
}

/// Makes a message of a role and its text.
pub(crate) fn message(role: &str, content: String) -> Map<String, Value> {
    let mut message = Map::new();
    message.insert("role".to_owned(), Value::from(role));
    message.insert("content".to_owned(), Value::from(content));
    message
}

fn read_message(
    record: &Record,
    dialect: &Dialect,
    index: usize,
    value: &Value,
) -> Result<Map<String, Value>> {
    let field = |name: &str| format!("{}[{index}].{name}", dialect.list);
    let Value::Object(fields) = value else {
        return Err(wrong(&record.place, format!("{}[{index}]", dialect.list), "an object", value));
    };
    let role = match fields.get(dialect.role) {
        Some(Value::String(role)) => role.as_str(),
        other => {
            let found = other.unwrap_or(&Value::Null);
            return Err(wrong(&record.place, field(dialect.role), "a role", found));
        }
    };
    if !dialect.roles.contains(&role) {
        return Err(Error::UnknownRole {
            place: record.place.clone(),
            message: index + 1,
            role: role.to_owned(),
            known: dialect.roles,
        });
    }
    let role = match role {
        "human" => "user",
        "gpt" => "assistant",
        same => same,
    };
    let content = match fields.get(dialect.content) {
        Some(Value::String(content)) => Value::from(content.as_str()),
        // A turn that only calls tools has no content.
        Some(Value::Null) | None if fields.contains_key("tool_calls") => Value::Null,
        other => {
            let found = other.unwrap_or(&Value::Null);
            return Err(wrong(&record.place, field(dialect.content), "a string", found));
        }
    };
    let mut message = Map::new();
    message.insert("role".to_owned(), Value::from(role));
    message.insert("content".to_owned(), content);
    for (key, extra) in fields {
        if key != dialect.role && key != dialect.content {
            message.entry(key.clone()).or_insert_with(|| extra.clone());
        }
    }
    Ok(message)
}
