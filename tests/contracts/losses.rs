//! The loss of a step is a mean over its trained tokens, however they are dealt out.

use seedcorn_data::Stream;
use seedcorn_tests::model::batch;
use seedcorn_tests::scratch::{Scratch, Tokens, samples};

/// Sums in another order may differ by this much, relatively.
const CLOSE: f64 = 1e-5;

fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (step, (got, expected)) in got.iter().zip(expected).enumerate() {
        let relative = (got / expected - 1.0).abs();
        assert!(relative < CLOSE, "{what}: step {} has {got}, expected {expected}", step + 1);
    }
}

/// Eight samples whose numbers of trained tokens differ by far.
fn uneven() -> Vec<Tokens> {
    let samples = samples(8, 5..40, 11);
    let trained: Vec<usize> =
        samples.iter().map(|one| batch(std::slice::from_ref(one)).target_tokens()).collect();
    let (least, most) = (trained.iter().min(), trained.iter().max());
    assert!(least.zip(most).is_some_and(|(least, most)| most > &(5 * least)), "{trained:?}");
    samples
}

#[test]
fn micro_batches_change_nothing() {
    let scratch = Scratch::new("llama", &uneven());
    let run = |micro_batch: u64| {
        let output = format!("micro-{micro_batch}");
        scratch.train(&output, &[&format!("train.micro_batch={micro_batch}")]).expect("a finished run");
        (scratch.steps(&output, "loss"), scratch.steps(&output, "grad_norm"))
    };
    let one = run(1);
    assert_eq!(one.0.len(), 4);
    for micro_batch in [2, 8] {
        let (losses, norms) = run(micro_batch);
        assert_close(&format!("loss at micro-batch {micro_batch}"), &losses, &one.0);
        assert_close(&format!("gradient norm at micro-batch {micro_batch}"), &norms, &one.1);
    }
}

#[test]
fn packing_changes_nothing() {
    let scratch = Scratch::new("llama", &uneven());
    let packing = ["data.packing=true", "data.max_length=48", "train.batch_size=1", "train.micro_batch=1"];
    let prepared = scratch.prepare("packed", &packing).expect("prepared");
    let packs = Stream::new(prepared.dataset.clone(), prepared.stream.clone()).expect("a stream");
    let packs = packs.units_per_epoch();
    assert!((2..8).contains(&packs), "{packs} packs of 8 samples");
    // All samples are in each step, so the order of epochs does not matter.
    let all = format!("train.batch_size={packs}");
    scratch.train("packed", &[packing[0], packing[1], &all, "train.micro_batch=1"]).expect("a finished run");
    scratch.train("plain", &[]).expect("a finished run");
    for what in ["loss", "grad_norm", "trained_tokens"] {
        assert_close(what, &scratch.steps("packed", what), &scratch.steps("plain", what));
    }
}

/// Means of means weigh a sample with one trained token like one with thirty.
#[test]
fn every_trained_token_weighs_the_same() {
    let samples = uneven();
    let scratch = Scratch::new("llama", &samples);
    let model = scratch.train("run", &[]).expect("a finished run").decoder;
    let alone: Vec<(f64, f64)> = samples
        .iter()
        .map(|sample| {
            let batch = batch(std::slice::from_ref(sample));
            (model.loss_sum(&(&batch).into(), None), batch.target_tokens() as f64)
        })
        .collect();
    let tokens: f64 = alone.iter().map(|(_, tokens)| tokens).sum();
    let of_tokens = alone.iter().map(|(loss, _)| loss).sum::<f64>() / tokens;
    let of_samples = alone.iter().map(|(loss, tokens)| loss / tokens).sum::<f64>() / alone.len() as f64;
    // Before step 1 the adapter adds nothing.
    assert_close("the first loss", &scratch.steps("run", "loss")[..1], &[of_tokens]);
    assert!((of_samples / of_tokens - 1.0).abs() > 1e-3, "the two means are too near to tell apart");
    assert_eq!(scratch.steps("run", "trained_tokens"), [1.0, 2.0, 3.0, 4.0].map(|steps| steps * tokens));
}
