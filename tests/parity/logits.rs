//! Logits and losses of the base models.

use seedcorn::model::Decoder;
use seedcorn_kernels::frozen::Storage;
use seedcorn_tests::model::{PLAIN, batch, max_difference, tiny, values};

use crate::reference::{Case, DIALECTS, FAMILIES, case};

/// Largest difference of a logit; their magnitude is about 5.
const LOGITS: f64 = 2e-4;
/// Relative difference of a mean loss.
const LOSS: f64 = 1e-5;

fn compare(what: &str, model: &Decoder, case: &Case) {
    let batch = batch(&case.rows);
    let logits = values(model.logits(&(&batch).into(), None));
    let difference = max_difference(&logits, &case.logits);
    assert!(difference < LOGITS, "{what}: a logit differs by {difference:e}");
    let loss = model.loss_sum(&(&batch).into(), None) / batch.target_tokens() as f64;
    let relative = (loss / case.loss - 1.0).abs();
    assert!(relative < LOSS, "{what}: loss {loss}, transformers has {}", case.loss);
}

#[test]
fn of_every_family_in_both_dialects() {
    for family in FAMILIES {
        for dialect in DIALECTS {
            let model = tiny(family, dialect, PLAIN);
            for name in ['a', 'b'] {
                compare(&format!("{family}/{dialect}, case {name}"), &model, &case(family, name));
            }
        }
    }
}

/// A wrong row would stay below the tolerance if the reference said little: it does not.
#[test]
fn the_comparison_can_fail() {
    let (model, case) = (tiny("llama", "config.json", PLAIN), case("llama", 'a'));
    let mut rows = case.rows.clone();
    rows[0].0[3] ^= 1;
    let logits = values(model.logits(&(&batch(&rows)).into(), None));
    assert!(max_difference(&logits, &case.logits) > 100.0 * LOGITS);
}

/// A checkpoint of bitsandbytes stays 4 bit in memory and gives what bitsandbytes gives.
#[test]
fn of_a_bitsandbytes_checkpoint() {
    let model = tiny("llama-bnb-nf4", "config.json", PLAIN);
    assert_eq!(model.projections().count(), 14);
    assert!(model.projections().all(|one| matches!(&*one.weight.storage(), Storage::Nf4(_))));
    compare("llama-bnb-nf4", &model, &case("llama-bnb-nf4", 'a'));
}
