//! One held-out question, answered by the model: what a person wants to see of a run.

use seedcorn_adapters::Adapter;
use seedcorn_data::{IGNORE, Sample, Tokenizer};

use crate::generate::{Sampling, generate};
use crate::model::Model;
use crate::parallel::ParallelError;

/// Tokens of a shown answer at most.
const MAX_NEW_TOKENS: usize = 80;

/// A question of the data and the model's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The end of the prompt: the last turn before the answer.
    pub question: String,
    /// The answer in the data.
    pub expected: String,
    /// The model's answer, greedy.
    pub answer: String,
}

/// A held-out sample, cut where its trained part begins.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    prompt: &'a [u32],
    expected: &'a [u32],
}

impl<'a> Question<'a> {
    /// Cuts a sample; nothing if all or none of it is trained.
    pub fn new(sample: &'a Sample) -> Option<Self> {
        let start = sample.labels.iter().position(|&label| label != IGNORE).filter(|&start| start > 0)?;
        let trained = sample.labels[start..].iter().take_while(|label| **label != IGNORE).count();
        let (prompt, rest) = sample.input_ids.split_at(start);
        Some(Self { prompt, expected: &rest[..trained] })
    }

    /// Lets the model continue the prompt, greedily.
    ///
    /// # Errors
    /// [`ParallelError`], where ranks hold the model together: each of them asks.
    pub fn ask(self, model: Model, adapter: &Adapter, stop: &[u32]) -> Result<Vec<u32>, ParallelError> {
        let sampling = Sampling {
            max_new_tokens: MAX_NEW_TOKENS,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            stop: stop.to_vec(),
        };
        generate(model, Some(adapter), self.prompt, &sampling, |_| {})
    }

    /// Puts question and answers into words.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn shown(self, generated: &[u32], tokenizer: &Tokenizer) -> anyhow::Result<Shown> {
        let mut answer = tokenizer.decode(generated, true)?.trim().to_owned();
        if generated.len() == MAX_NEW_TOKENS {
            answer.push_str(" ...");
        }
        Ok(Shown {
            question: last_turn(self.prompt, tokenizer)?,
            expected: tokenizer.decode(self.expected, true)?.trim().to_owned(),
            answer,
        })
    }
}

/// Returns the last stretch between special tokens that is more than a role's name.
fn last_turn(prompt: &[u32], tokenizer: &Tokenizer) -> anyhow::Result<String> {
    let mut turn = String::new();
    for stretch in prompt.split(|&id| tokenizer.is_special(id)) {
        let text = tokenizer.decode(stretch, false)?;
        if text.split_whitespace().count() > 1 {
            turn = text;
        }
    }
    let turn = turn.trim();
    Ok(turn.strip_prefix("user\n").unwrap_or(turn).trim().to_owned())
}
