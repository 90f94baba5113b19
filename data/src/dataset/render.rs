//! One record to one sample: rendered, tokenized, masked, ended.

use std::ops::Range;

use crate::batch::{IGNORE, Sample};
use crate::error::{Error, Place, Result};
use crate::format::{Example, Format, Record, message};
use crate::mask::{self, Rendered, TrainOn};
use crate::tokenizer::Tokenizer;

/// How the records of a source become samples.
pub(super) struct Renderer<'a> {
    pub(super) tokenizer: Option<&'a Tokenizer>,
    pub(super) format: Format,
    pub(super) train_on: TrainOn,
    pub(super) vocab: usize,
    pub(super) source: u32,
}

/// A sample, and what was noticed on the way.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) sample: Sample,
    pub(super) double_bos: bool,
    pub(super) missing_eos: bool,
}

impl Renderer<'_> {
    /// Makes the sample of record `index`.
    pub(super) fn sample(&self, record: &Record, index: u64) -> Result<Made> {
        let example = self.format.parse(record, self.vocab)?;
        let mut made = match example {
            Example::Tokens { input_ids, labels } => {
                Made { sample: Sample { input_ids, labels, ..Sample::default() }, ..Made::default() }
            }
            text => {
                let tokenizer = self.tokenizer.ok_or(Error::NoTokenizer { format: self.format.name() })?;
                self.text_sample(tokenizer, text, &record.place)?
            }
        };
        made.sample.source = self.source;
        made.sample.index = index;
        Ok(made)
    }

    fn text_sample(&self, tokenizer: &Tokenizer, example: Example, place: &Place) -> Result<Made> {
        let messages = match example {
            Example::Chat(messages) => messages,
            Example::Instruction { instruction, input, output, system } if tokenizer.template().is_some() => {
                let input = if input.is_empty() { input } else { format!("\n\n{input}") };
                let mut messages: Vec<_> = system.map(|text| message("system", text)).into_iter().collect();
                messages.push(message("user", instruction + &input));
                messages.push(message("assistant", output));
                messages
            }
            Example::Instruction { instruction, input, output, system } => {
                let prompt = alpaca(&instruction, &input, system.as_deref());
                return self.plain(tokenizer, prompt, &output, place);
            }
            Example::Completion { prompt, completion } => {
                return self.plain(tokenizer, prompt, &completion, place);
            }
            Example::Text(text) => return self.plain(tokenizer, String::new(), &text, place),
            Example::Tokens { .. } => unreachable!("ready ids are not rendered"),
        };
        let template = tokenizer.template().ok_or_else(|| Error::NoTemplate { place: place.clone() })?;
        let rendered = mask::conversation(template, &messages, self.train_on, place)?;
        chat_sample(tokenizer, &rendered, self.train_on)
    }

    /// A prompt, and a text after it that ends with EOS.
    fn plain(&self, tokenizer: &Tokenizer, prompt: String, target: &str, place: &Place) -> Result<Made> {
        let eos = tokenizer
            .eos_id()
            .ok_or_else(|| Error::NoEos { place: place.clone(), format: self.format.name() })?;
        let start = if self.train_on == TrainOn::All { 0 } else { prompt.len() };
        let text = prompt + target;
        let trained: Range<usize> = start..text.len();
        let encoded = tokenizer.encode_offsets(&text)?;
        let mut labels = mask::labels(&encoded, std::slice::from_ref(&trained));
        let mut input_ids = encoded.ids;
        if input_ids.last() != Some(&eos) {
            input_ids.push(eos);
            labels.push(eos as i32);
        }
        if let (true, Some(bos)) = (tokenizer.parts().add_bos, tokenizer.bos_id()) {
            input_ids.insert(0, bos);
            labels.insert(0, IGNORE);
        }
        let mut made = Made { sample: Sample { input_ids, labels, ..Sample::default() }, ..Made::default() };
        made.drop_double_bos(tokenizer.bos_id());
        Ok(made)
    }
}

fn chat_sample(tokenizer: &Tokenizer, rendered: &Rendered, train_on: TrainOn) -> Result<Made> {
    let encoded = tokenizer.encode_offsets(&rendered.text)?;
    let labels = mask::labels(&encoded, &rendered.spans);
    let missing_eos = train_on != TrainOn::All && !all_turns_end(tokenizer, &labels);
    let sample = Sample { input_ids: encoded.ids, labels, ..Sample::default() };
    let mut made = Made { sample, missing_eos, ..Made::default() };
    made.drop_double_bos(tokenizer.bos_id());
    Ok(made)
}

/// True when the last token of each trained run is special.
fn all_turns_end(tokenizer: &Tokenizer, labels: &[i32]) -> bool {
    let next = labels.iter().skip(1).copied().chain(std::iter::once(IGNORE));
    labels
        .iter()
        .zip(next)
        .filter(|&(&label, next)| label != IGNORE && next == IGNORE)
        .all(|(&label, _)| tokenizer.is_special(label as u32))
}

impl Made {
    /// Templates write BOS themselves; where text or tokenizer write it once more, one is too many.
    fn drop_double_bos(&mut self, bos: Option<u32>) {
        if let (Some(bos), [first, second, ..]) = (bos, self.sample.input_ids.as_slice())
            && *first == bos
            && *second == bos
        {
            self.sample.input_ids.remove(0);
            self.sample.labels.remove(0);
            self.double_bos = true;
        }
    }
}

/// The prompt of Stanford Alpaca, for models without a chat template. A system message takes the place
/// of its first sentence.
fn alpaca(instruction: &str, input: &str, system: Option<&str>) -> String {
    let preamble = system.unwrap_or(if input.is_empty() {
        "Below is an instruction that describes a task. \
         Write a response that appropriately completes the request."
    } else {
        "Below is an instruction that describes a task, paired with an input that provides further context. \
         Write a response that appropriately completes the request."
    });
    let input = if input.is_empty() { String::new() } else { format!("### Input:\n{input}\n\n") };
    format!("{preamble}\n\n### Instruction:\n{instruction}\n\n{input}### Response:\n")
}
