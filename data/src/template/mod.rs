//! The model's chat template, rendered as transformers renders it.
//!
//! Templates come from model repositories and are not trusted: no files, no clock, bounded fuel and output.
//! `strftime_now` therefore tells a fixed date, so that the same records give the same tokens on any day.

mod date;
mod json;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind};
use regex::Regex;
use serde_json::{Map, Value};

pub use date::Date;

use crate::error::{Error, Place, Result};

/// A message: `role`, `content`, and whatever else the record had.
pub type Message = Map<String, Value>;

/// Instructions one rendering may take: some thousand messages' worth.
const FUEL: u64 = 5_000_000;
/// Bytes one rendering may write.
const MAX_OUTPUT: usize = 64 << 20;

/// Names of a message's reasoning, the first of them what most templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

const PLAIN: &str = "chat";
const MARKED: &str = "chat, generation marked";
/// Written around `{% generation %}` blocks; private-use characters, so that no real text holds them.
const OPEN: &str = "\u{f8e0}\u{f8e1}";
const CLOSE: &str = "\u{f8e1}\u{f8e0}";

static GENERATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("the pattern is a constant")
});

static TAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?s)\{[{%].*?[%}]\}").expect("the pattern is a constant"));

/// Why a template did not render.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenderError {
    /// The template called `raise_exception` with these words.
    Raised(String),
    /// The engine stopped for this reason.
    Failed(String),
}

impl RenderError {
    /// Adds the record's place.
    pub fn at(self, place: &Place) -> Error {
        let place = place.clone();
        match self {
            Self::Raised(message) => Error::TemplateRaised { place, message },
            Self::Failed(reason) => Error::TemplateFailed { place, reason },
        }
    }
}

/// What `raise_exception` puts into the engine's error, to be found again.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    marked: bool,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// Compiles a template; `bos` and `eos` are what it sees as `bos_token` and `eos_token`.
    ///
    /// `date` is what `strftime_now` tells. Whitespace control is that of transformers (`trim_blocks`,
    /// `lstrip_blocks`), and strings have Python's methods.
    ///
    /// # Errors
    /// A template that does not parse.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>, date: Date) -> Result<Self> {
        let fault = |fault: minijinja::Error| Error::BadTemplate { reason: fault.to_string() };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(fault)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(write_as_python);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: &str| date.format(format));
        let source = join_lines(source);
        let marked = GENERATION.is_match(&source);
        environment.add_template_owned(PLAIN, replace_generation(&source, ["", ""])).map_err(fault)?;
        if marked {
            environment
                .add_template_owned(MARKED, replace_generation(&source, [OPEN, CLOSE]))
                .map_err(fault)?;
        }
        Ok(Self { environment, marked, bos: bos.map(str::to_owned), eos: eos.map(str::to_owned) })
    }

    /// Renders a conversation, with the header of the next assistant turn when `add_generation_prompt`.
    ///
    /// # Errors
    /// The template raises, fails, runs out of fuel or writes more than 64 MiB.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, RenderError> {
        self.render_named(PLAIN, messages, add_generation_prompt)
    }

    /// Renders a conversation and tells the byte ranges of its `{% generation %}` blocks.
    ///
    /// `None` when the template has no such block, or when they cannot be followed (a block inside a
    /// captured value, text with our private marks).
    pub(crate) fn render_marked(&self, messages: &[Message]) -> Option<(String, Vec<Range<usize>>)> {
        if !self.marked {
            return None;
        }
        let marked = self.render_named(MARKED, messages, false).ok()?;
        let mut text = String::with_capacity(marked.len());
        let mut spans = Vec::new();
        let mut rest = marked.as_str();
        while let Some((before, inside)) = rest.split_once(OPEN) {
            let (inside, after) = inside.split_once(CLOSE)?;
            text.push_str(before);
            let start = text.len();
            text.push_str(inside);
            spans.push(start..text.len());
            rest = after;
        }
        text.push_str(rest);
        (text == self.render(messages, false).ok()?).then_some((text, spans))
    }

    fn render_named(&self, name: &str, messages: &[Message], prompt: bool) -> Result<String, RenderError> {
        let mut context = Map::new();
        context.insert("messages".to_owned(), messages.iter().map(normalized).collect());
        context.insert("add_generation_prompt".to_owned(), Value::Bool(prompt));
        context.insert("tools".to_owned(), Value::Null);
        context.insert("documents".to_owned(), Value::Null);
        for (name, token) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            if let Some(token) = token {
                context.insert(name.to_owned(), Value::from(token.as_str()));
            }
        }
        let mut output = Bounded(Vec::new());
        self.environment
            .get_template(name)
            .and_then(|template| {
                let context = minijinja::Value::from(minijinja::value::Serde(&context));
                template.render_captured_to(context, &mut output).map(drop)
            })
            .map_err(|fault| render_error(&fault))?;
        String::from_utf8(output.0).map_err(|fault| RenderError::Failed(fault.to_string()))
    }
}

/// A message as transformers hands it to a template: without null fields, and with its reasoning under the
/// names that templates read.
fn normalized(message: &Message) -> Value {
    let mut fields = Map::new();
    let reasoning = REASONING.iter().find_map(|name| message.get(*name).filter(|value| !value.is_null()));
    if let Some(reasoning) = reasoning {
        fields.insert("thinking".to_owned(), reasoning.clone());
    }
    let given = message.iter().filter(|(_, value)| !value.is_null());
    fields.extend(given.map(|(name, value)| (name.clone(), value.clone())));
    if let Some(reasoning) = reasoning {
        fields.insert("reasoning_content".to_owned(), reasoning.clone());
    }
    Value::Object(fields)
}

/// Takes a backslash at a line's end within a string out, with the line's end, as Python's strings do; our
/// engine would keep both.
fn join_lines(source: &str) -> String {
    TAG.replace_all(source, |tag: &regex::Captures<'_>| tag[0].replace("\\\n", "")).into_owned()
}

/// Turns `{% generation %}` into `{% if true %}`, keeping its whitespace control, and writes a mark inside.
///
/// The second `if` stands where the tag's right side stood, so that what the tag strips stays stripped.
fn replace_generation(source: &str, marks: [&str; 2]) -> String {
    GENERATION
        .replace_all(source, |tag: &regex::Captures<'_>| {
            let (left, right) = (&tag[1], &tag[3]);
            match (tag.get(2).is_some(), marks) {
                (false, ["", _]) => format!("{{%{left} if true {right}%}}"),
                (true, ["", _]) => format!("{{%{left} endif {right}%}}"),
                (false, [open, _]) => {
                    format!("{{%{left} if true %}}{{{{ '{open}' }}}}{{% if true {right}%}}")
                }
                (true, [_, close]) => {
                    format!("{{%{left} endif %}}{{{{ '{close}' }}}}{{% endif {right}%}}")
                }
            }
        })
        .into_owned()
}

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn render_error(fault: &minijinja::Error) -> RenderError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(fault);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return RenderError::Raised(message.clone());
        }
        cause = error.source();
    }
    RenderError::Failed(fault.to_string())
}

/// Writes booleans and none as Python's Jinja does.
fn write_as_python(
    output: &mut minijinja::Output<'_>,
    state: &mut minijinja::State<'_, '_>,
    value: &minijinja::Value,
) -> Result<(), minijinja::Error> {
    use minijinja::value::ValueKind;
    match value.kind() {
        ValueKind::None => Ok(output.write_str("None")?),
        ValueKind::Bool => Ok(output.write_str(if value.is_true() { "True" } else { "False" })?),
        _ => minijinja::escape_formatter(output, state, value),
    }
}

/// A writer that stops at [`MAX_OUTPUT`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(format!("the template writes more than {MAX_OUTPUT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
