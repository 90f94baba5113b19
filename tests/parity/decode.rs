//! Tokens one after another, with cached keys and values, give what the whole sequence gives.

use seedcorn_tests::model::{PLAIN, input, max_difference, tiny, values};

use crate::reference::{FAMILIES, case};

/// Largest difference of a logit: sums run in another order.
const LOGITS: f64 = 1e-4;

#[test]
fn token_by_token_equals_the_whole_sequence() {
    for family in FAMILIES {
        let model = tiny(family, "config.json", PLAIN);
        let vocab = model.spec.vocab_size;
        let row = case(family, 'a').rows.swap_remove(0);
        let ids = row.0.clone();
        let window = model.spec.layers[0].window.unwrap_or(0);
        assert!(ids.len() > window + 8, "the sequence is longer than the window");
        assert_eq!(window > 0, family == "mistral-swa");
        let whole: Vec<f64> = values(model.logits(&input(&[row]), None)).into_iter().map(f64::from).collect();
        // A prompt of several tokens at once, or single tokens from the start.
        for prompt in [1, 11] {
            let mut cache = model.cache();
            let mut logits = model.advance(&mut cache, &ids[..prompt], None);
            for at in prompt..=ids.len() {
                let difference = max_difference(&logits, &whole[(at - 1) * vocab..at * vocab]);
                assert!(difference < LOGITS, "{family}: token {at} differs by {difference:e}");
                assert_eq!(cache.tokens(), at);
                if at < ids.len() {
                    logits = model.advance(&mut cache, &ids[at..=at], None);
                }
            }
        }
    }
}
