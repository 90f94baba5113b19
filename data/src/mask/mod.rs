//! Which part of a rendered conversation is trained.
//!
//! The whole conversation is rendered once; each assistant turn is then found as the byte range its
//! rendering occupies, in this order:
//! 1. `{% generation %}` blocks, when the template has them: its author says what the assistant writes.
//! 2. Prefixes: the conversation up to the turn, with the generation prompt, and up to and with the turn.
//!    Both must be prefixes of the whole. What lies between them is what the model would have to write.
//! 3. A sentinel in place of the turn's content: what stands around it also stands around the content.
//!    For templates without a generation prompt, and those whose earlier turns change as a conversation
//!    goes on.
//!
//! The range takes the end-of-turn token in, but neither the role header nor the whitespace after the turn.

#[cfg(test)]
mod tests;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::IGNORE;
use crate::error::{Error, Place, Result};
use crate::template::{ChatTemplate, Message};
use crate::tokenizer::Encoded;

/// What is trained in a sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainOn {
    /// Assistant turns, or the completion.
    #[default]
    Assistant,
    /// Every token.
    All,
    /// Only the last assistant turn.
    Last,
}

/// A text and the byte ranges in it that are trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Ranges in order, without overlap.
    pub spans: Vec<Range<usize>>,
}

/// Renders a conversation and finds what of it is trained.
///
/// # Errors
/// The template refuses or fails, or a turn cannot be found.
pub(crate) fn conversation(
    template: &ChatTemplate,
    messages: &[Message],
    train_on: TrainOn,
    place: &Place,
) -> Result<Rendered> {
    if train_on != TrainOn::All
        && let Some((text, mut spans)) = template.render_marked(messages)
    {
        if train_on == TrainOn::Last {
            spans.drain(..spans.len().saturating_sub(1));
        }
        return Ok(Rendered { text, spans });
    }
    let text = template.render(messages, false).map_err(|fault| fault.at(place))?;
    let mut turns: Vec<usize> = (0..messages.len()).filter(|&i| messages[i]["role"] == "assistant").collect();
    match train_on {
        TrainOn::All => {
            let spans = Vec::from([Range { start: 0, end: text.len() }]);
            return Ok(Rendered { text, spans });
        }
        TrainOn::Last => drop(turns.drain(..turns.len().saturating_sub(1))),
        TrainOn::Assistant => {}
    }
    let mut spans: Vec<Range<usize>> = Vec::with_capacity(turns.len());
    for turn in turns {
        let after = spans.last().map_or(0, |span| span.end);
        let found = Turn { template, messages, whole: &text, at: turn };
        let span = found.by_prefixes().or_else(|| found.by_sentinel()).filter(|span| span.start >= after);
        spans.push(span.ok_or_else(|| Error::SpanNotFound { place: place.clone(), turn: turn + 1 })?);
    }
    Ok(Rendered { text, spans })
}

/// One assistant turn of a rendered conversation.
struct Turn<'a> {
    template: &'a ChatTemplate,
    messages: &'a [Message],
    whole: &'a str,
    /// Number of the message, from zero.
    at: usize,
}

impl Turn<'_> {
    /// What stands before the turn, when that is a prefix of the whole.
    fn before(&self) -> Option<String> {
        let before = self.template.render(&self.messages[..self.at], true).ok()?;
        self.whole.starts_with(&before).then_some(before)
    }

    /// Text of the turn; `None` when it only calls tools.
    fn content(&self) -> Option<&str> {
        self.messages[self.at]["content"].as_str()
    }

    fn by_prefixes(&self) -> Option<Range<usize>> {
        if self.silent() && self.content().is_some() {
            // Without a generation prompt a header may stand before the content: only a sentinel shows it.
            return None;
        }
        let before = self.before()?;
        let after = self.template.render(&self.messages[..=self.at], false).ok()?;
        if after.len() < before.len() || !self.whole.starts_with(&after) {
            return None;
        }
        Some(before.len()..trimmed(self.whole, before.len()..after.len()))
    }

    fn by_sentinel(&self) -> Option<Range<usize>> {
        self.content()?;
        let sentinel = (0..64).map(|n| format!("SENTINEL{n}TURN")).find(|word| !self.whole.contains(word))?;
        let mut messages = self.messages.to_vec();
        messages[self.at].insert("content".to_owned(), Value::from(sentinel.as_str()));
        let around = self.template.render(&messages, false).ok()?;
        let (head, tail) = once(&around, &sentinel)?;
        let content_end = self.whole.strip_suffix(tail)?.len();
        let start = match self.before() {
            Some(before) if before.len() <= content_end => {
                before.len().max(if self.silent() { self.header(head) } else { 0 })
            }
            _ if self.whole.starts_with(head) => self.header(head),
            _ => return None,
        };
        if content_end < start {
            return None;
        }
        let until = self.template.render(&messages[..=self.at], false).ok();
        let closing = until.as_deref().and_then(|until| once(until, &sentinel)).map(|(_, closing)| closing);
        let end = match closing.map(str::trim_end) {
            Some(closing) if tail.starts_with(closing) => content_end + closing.len(),
            _ => return None,
        };
        Some(start..trimmed(self.whole, start..end))
    }

    /// True when the template has no generation prompt.
    fn silent(&self) -> bool {
        let before = |prompt| self.template.render(&self.messages[..self.at], prompt).ok();
        before(true).is_some_and(|with| before(false).is_some_and(|without| with == without))
    }

    /// Length of what stands before the content, zero when it does not stand in the whole. Without a
    /// generation prompt the model writes the space before its answer too.
    fn header(&self, head: &str) -> usize {
        let written = if self.silent() { head.trim_end_matches(' ') } else { head };
        if self.whole.starts_with(head) { written.len() } else { 0 }
    }
}

/// The parts around a word that stands exactly once.
fn once<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let (before, after) = text.split_once(word)?;
    (!after.contains(word)).then_some((before, after))
}

/// End of a range without the whitespace at its end.
fn trimmed(text: &str, range: Range<usize>) -> usize {
    range.start + text[range].trim_end().len()
}

/// Labels of an encoded text: the ids of tokens that hold a byte of a span, [`IGNORE`] elsewhere.
///
/// A token over a border is trained: no part of a target is lost.
pub(crate) fn labels(encoded: &Encoded, spans: &[Range<usize>]) -> Vec<i32> {
    let mut next = 0;
    encoded
        .ids
        .iter()
        .zip(&encoded.offsets)
        .map(|(&id, &(start, end))| {
            while next < spans.len() && spans[next].end <= start {
                next += 1;
            }
            let trained = spans.get(next).is_some_and(|span| span.start < end);
            if trained { id as i32 } else { IGNORE }
        })
        .collect()
}
