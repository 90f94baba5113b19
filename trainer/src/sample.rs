//! One held-out question, answered by the model: what a person wants to see of a run.

use seedcorn_adapters::Adapter;
use seedcorn_data::{IGNORE, Sample, Tokenizer};

use crate::generate::{Sampling, generate};
use crate::model::Pass;
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

/// A sample that the model is to continue where its trained part begins.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    prompt: &'a [u32],
    text: String,
    expected: String,
}

impl<'a> Question<'a> {
    /// Takes a sample; nothing if all or none of it is trained.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn of(sample: &'a Sample, tokenizer: &Tokenizer) -> anyhow::Result<Option<Self>> {
        let start = sample.labels.iter().position(|&label| label != IGNORE);
        let Some(start) = start.filter(|&start| start > 0) else { return Ok(None) };
        let (prompt, rest) = sample.input_ids.split_at(start);
        let expected = rest.iter().zip(&sample.labels[start..]).take_while(|(_, label)| **label != IGNORE);
        let expected: Vec<u32> = expected.map(|(id, _)| *id).collect();
        let text = last_turn(prompt, tokenizer)?;
        let expected = tokenizer.decode(&expected, true)?.trim().to_owned();
        Ok(Some(Self { prompt, text, expected }))
    }

    /// Lets the model answer, greedy.
    ///
    /// # Errors
    /// What the other ranks of the model make of it.
    pub fn answered(&self, pass: Pass, adapter: &Adapter, stop: &[u32]) -> Result<Vec<u32>, ParallelError> {
        let sampling = Sampling {
            max_new_tokens: MAX_NEW_TOKENS,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            stop: stop.to_vec(),
        };
        generate(pass, Some(adapter), self.prompt, &sampling, |_| {})
    }

    /// Puts question and answer in words.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn shown(self, answer: &[u32], tokenizer: &Tokenizer) -> anyhow::Result<Shown> {
        let mut answered = tokenizer.decode(answer, true)?.trim().to_owned();
        if answer.len() == MAX_NEW_TOKENS {
            answered.push_str(" ...");
        }
        Ok(Shown { question: self.text, expected: self.expected, answer: answered })
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
