//! A sample token by token, for people.

use super::Dataset;
use crate::batch::{IGNORE, Sample};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// A token as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenView {
    /// Its id.
    pub id: u32,
    /// The text it adds; empty while a character is unfinished.
    pub text: String,
    /// True when it is trained.
    pub trained: bool,
}

impl Dataset {
    /// Shows training sample `index` (a position in [`Dataset::samples`]); `None` when there is none.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn inspect(&self, index: usize, tokenizer: &Tokenizer) -> Option<Result<Vec<TokenView>>> {
        self.samples().get(index).map(|sample| sample.view(tokenizer))
    }
}

impl Sample {
    /// Shows each token: its id, the text it adds, whether it is trained. Texts join to the decoded sample.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn view(&self, tokenizer: &Tokenizer) -> Result<Vec<TokenView>> {
        let mut stream = tokenizer.stream(false);
        let mut views = Vec::with_capacity(self.tokens());
        for (position, (&id, &label)) in self.input_ids.iter().zip(&self.labels).enumerate() {
            // The first token is never predicted, whatever its label.
            let trained = label != IGNORE && position > 0;
            views.push(TokenView { id, text: stream.step(id)?, trained });
        }
        if let Some(last) = views.last_mut() {
            last.text.push_str(&stream.finish()?);
        }
        Ok(views)
    }
}
