//! Decodes ids one by one.

use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Tokens a broken character may hang over before it is shown as it is.
const MAX_PENDING: usize = 8;

/// Gives the text of each id as soon as it is whole: a character may take several ids.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The last ids already shown (decoders look at their neighbours), then those not yet shown.
    ids: Vec<u32>,
    shown: usize,
}

impl<'a> StreamDecoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), shown: 0 }
    }

    /// Takes the next id and gives the text it completes; empty while a character is unfinished.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn step(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let pending = self.ids.len() - self.shown;
        let text = self.fresh()?;
        if text.ends_with('\u{fffd}') && pending < MAX_PENDING {
            return Ok(String::new());
        }
        // Keep only what was shown last as the context of what comes.
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Ok(text)
    }

    /// Gives what is left of an unfinished character.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn finish(self) -> Result<String> {
        if self.ids.len() == self.shown { Ok(String::new()) } else { self.fresh() }
    }

    /// Text of the ids not yet shown, decoded after those shown last.
    fn fresh(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[..self.shown], self.skip_special)?;
        let whole = self.tokenizer.decode(&self.ids, self.skip_special)?;
        match whole.strip_prefix(&before) {
            Some(fresh) => Ok(fresh.to_owned()),
            None => self.tokenizer.decode(&self.ids[self.shown..], self.skip_special),
        }
    }
}
