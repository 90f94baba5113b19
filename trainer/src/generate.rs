//! Text from a model: greedy, or sampled with a seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use seedcorn_adapters::Adapter;

use crate::model::Model;
use crate::parallel::ParallelError;

/// How the next token is chosen, and when to stop.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// 0 takes the likeliest token; larger values flatten the distribution.
    pub temperature: f32,
    /// Share of the probability mass, likeliest tokens first, that is drawn from; 1 is all of it.
    pub top_p: f32,
    /// Seed of the draws.
    pub seed: u64,
    /// Tokens that end the text.
    pub stop: Vec<u32>,
}

/// Continues `prompt` and hands over each new token as it comes; a stop token ends it and is not handed over.
///
/// # Errors
/// [`ParallelError`], where ranks hold the model together.
pub fn generate(
    model: Model,
    adapter: Option<&Adapter>,
    prompt: &[u32],
    sampling: &Sampling,
    mut on_token: impl FnMut(u32),
) -> Result<Vec<u32>, ParallelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
    let mut cache = model.decoder().cache();
    let mut generated = Vec::new();
    if prompt.is_empty() || sampling.max_new_tokens == 0 {
        return Ok(generated);
    }
    let mut logits = model.advance(&mut cache, prompt, adapter)?;
    loop {
        let token = choose(&logits, sampling, &mut rng);
        if sampling.stop.contains(&token) {
            return Ok(generated);
        }
        on_token(token);
        generated.push(token);
        if generated.len() == sampling.max_new_tokens {
            return Ok(generated);
        }
        logits = model.advance(&mut cache, &[token], adapter)?;
    }
}

/// Chooses a token: the first of the largest logits, or a draw from the nucleus of the softmax.
///
/// # Source
/// Holtzman et al., The Curious Case of Neural Text Degeneration (2019), arXiv:1904.09751, for `top_p`.
fn choose(logits: &[f32], sampling: &Sampling, rng: &mut ChaCha8Rng) -> u32 {
    let greedy = || {
        let first_of_largest = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
        (0..logits.len()).reduce(first_of_largest).unwrap_or(0) as u32
    };
    if sampling.temperature <= 0.0 {
        return greedy();
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from((logit - max) / sampling.temperature).exp();
    let mut weights: Vec<(usize, f64)> = logits.iter().map(|&logit| weight(logit)).enumerate().collect();
    weights.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut mass = 0.0;
    let kept = weights.iter().take_while(|(_, weight)| {
        let inside = mass < f64::from(sampling.top_p) * total;
        mass += weight;
        inside
    });
    let kept: Vec<(usize, f64)> = kept.copied().collect();
    let mut draw = rng.random::<f64>() * kept.iter().map(|(_, weight)| weight).sum::<f64>();
    for (token, weight) in &kept {
        draw -= weight;
        if draw < 0.0 {
            return *token as u32;
        }
    }
    kept.last().map_or_else(greedy, |(token, _)| *token as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f32, top_p: f32) -> Sampling {
        Sampling { max_new_tokens: 1, temperature, top_p, seed: 0, stop: Vec::new() }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(choose(&[0.0, 3.0, 1.0, 3.0], &sampling(0.0, 1.0), &mut rng), 1);
    }

    #[test]
    fn draws_follow_the_softmax_and_the_nucleus_cuts_the_tail() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let logits = [0.0, (3.0f32).ln(), f32::NEG_INFINITY];
        let mut count = |top_p| {
            let draws = (0..4000).map(|_| choose(&logits, &sampling(1.0, top_p), &mut rng));
            draws.fold([0usize; 3], |mut counts, token| {
                counts[token as usize] += 1;
                counts
            })
        };
        let [zero, one, two] = count(1.0);
        // Expected 1000, 3000 and 0; five standard deviations are 137.
        assert!(zero.abs_diff(1000) < 137 && one.abs_diff(3000) < 137 && two == 0, "{zero} {one} {two}");
        assert_eq!(count(0.5), [0, 4000, 0]);
    }
}
