//! One held-out question, answered by the model: what a person wants to see of a run.

use seedcorn_adapters::Adapter;
use seedcorn_data::{IGNORE, Sample, Tokenizer};

use crate::generate::{Sampling, generate};
use crate::model::Decoder;

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

/// Lets the model continue a sample where its trained part begins; nothing if all or none of it is trained.
///
/// # Errors
/// What the tokenizer reports.
pub fn show(
    sample: &Sample,
    tokenizer: &Tokenizer,
    model: &Decoder,
    adapter: &Adapter,
    stop: &[u32],
) -> anyhow::Result<Option<Shown>> {
    let Some(start) = sample.labels.iter().position(|&label| label != IGNORE).filter(|&start| start > 0)
    else {
        return Ok(None);
    };
    let sampling = Sampling {
        max_new_tokens: MAX_NEW_TOKENS,
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
        stop: stop.to_vec(),
    };
    let (prompt, rest) = sample.input_ids.split_at(start);
    let expected = rest.iter().zip(&sample.labels[start..]).take_while(|(_, label)| **label != IGNORE);
    let expected: Vec<u32> = expected.map(|(id, _)| *id).collect();
    let generated = generate(model, Some(adapter), prompt, &sampling, |_| {});
    let mut answer = tokenizer.decode(&generated, true)?.trim().to_owned();
    if generated.len() == MAX_NEW_TOKENS {
        answer.push_str(" ...");
    }
    Ok(Some(Shown {
        question: last_turn(prompt, tokenizer)?,
        expected: tokenizer.decode(&expected, true)?.trim().to_owned(),
        answer,
    }))
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
