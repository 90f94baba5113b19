//! Text to token ids and back.
//!
//! Wraps the `tokenizers` crate. Two things are taken out of a loaded tokenizer: its truncation and padding
//! (lengths are ours to decide, and to count), and its post-processor. The latter only adds special tokens,
//! which we do ourselves from `add_bos` and `add_eos`, and trims whitespace off offsets, which would leave
//! a newline inside an assistant turn without a position.

mod folder;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::template::{ChatTemplate, Date};
pub use stream::StreamDecoder;

/// What a tokenizer is made of; exports write these again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizerParts {
    /// Text of `tokenizer.json`.
    pub tokenizer_json: String,
    /// Beginning of a sequence.
    pub bos: Option<String>,
    /// End of a sequence.
    pub eos: Option<String>,
    /// Padding; kept for exports, never used in training.
    pub pad: Option<String>,
    /// Unknown token.
    pub unk: Option<String>,
    /// The chat template, Jinja.
    pub chat_template: Option<String>,
    /// Plain texts begin with BOS.
    pub add_bos: bool,
    /// [`Tokenizer::encode`] ends with EOS when asked for special tokens.
    pub add_eos: bool,
}

/// Ids of a text and the byte range each stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Byte ranges of the text, one for each id.
    pub offsets: Vec<(usize, usize)>,
}

/// A tokenizer with its special tokens and chat template.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    parts: TokenizerParts,
    template: Option<ChatTemplate>,
    vocab_size: usize,
    bos: Option<u32>,
    eos: Option<u32>,
}

impl Tokenizer {
    /// Builds a tokenizer; `strftime_now` in its template tells [`Date::default`].
    ///
    /// # Errors
    /// A `tokenizer_json` or a template that cannot be read, BOS or EOS outside the vocabulary.
    pub fn from_parts(parts: TokenizerParts) -> Result<Self> {
        Self::from_parts_at(parts, Date::default())
    }

    /// Builds a tokenizer whose template is told `date`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_parts`].
    pub fn from_parts_at(parts: TokenizerParts, date: Date) -> Result<Self> {
        let inner = load_inner(&parts.tokenizer_json)?;
        Self::assemble(inner, parts, date)
    }

    fn assemble(mut inner: tokenizers::Tokenizer, parts: TokenizerParts, date: Date) -> Result<Self> {
        inner.with_padding(None).with_truncation(None).map_err(tokenizer_fault)?;
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        let id = |role, token: &Option<String>| match token {
            None => Ok(None),
            Some(token) => match inner.token_to_id(token) {
                Some(id) => Ok(Some(id)),
                None => Err(Error::UnknownSpecialToken { role, token: token.clone() }),
            },
        };
        let (bos, eos) = (id("bos", &parts.bos)?, id("eos", &parts.eos)?);
        let (bos_text, eos_text) = (parts.bos.as_deref(), parts.eos.as_deref());
        let template = parts
            .chat_template
            .as_deref()
            .map(|source| ChatTemplate::new(source, bos_text, eos_text, date))
            .transpose()?;
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        Ok(Self { inner, parts, template, vocab_size, bos, eos })
    }

    /// Encodes a text; `add_special` adds BOS and EOS where the tokenizer is set to.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        if add_special && self.parts.add_bos {
            ids.extend(self.bos);
        }
        ids.extend(self.encode_offsets(text)?.ids);
        if add_special && self.parts.add_eos {
            ids.extend(self.eos);
        }
        Ok(ids)
    }

    /// Encodes a text without special tokens and tells where each token stands.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn encode_offsets(&self, text: &str) -> Result<Encoded> {
        let encoding = self.inner.encode(text, false).map_err(tokenizer_fault)?;
        Ok(Encoded { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() })
    }

    /// Turns ids back to text.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(tokenizer_fault)
    }

    /// Starts decoding ids one by one, as they are generated.
    pub fn stream(&self, skip_special: bool) -> StreamDecoder<'_> {
        StreamDecoder::new(self, skip_special)
    }

    /// The highest id plus one. The model's embedding may be larger.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Id of the beginning-of-sequence token.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// Id of the end-of-sequence token.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// Id of a token given as it stands in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token as it stands in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// True for added tokens marked special.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .get(&id)
            .is_some_and(|token| token.special)
    }

    /// The compiled chat template.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// What the tokenizer was made of.
    pub fn parts(&self) -> &TokenizerParts {
        &self.parts
    }
}

fn load_inner(json: &str) -> Result<tokenizers::Tokenizer> {
    tokenizers::Tokenizer::from_str(json).map_err(|fault| Error::BadTokenizer {
        what: "`tokenizer.json`".to_owned(),
        reason: fault.to_string(),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`, which hands the error over")]
fn tokenizer_fault(fault: tokenizers::Error) -> Error {
    Error::Tokenize { reason: fault.to_string() }
}
