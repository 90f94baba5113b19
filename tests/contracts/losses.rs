//! The loss of a step is a mean over its trained tokens, however they are dealt out.

use burn::tensor::Device;
use seedcorn::build::precision;
use seedcorn_data::Stream;
use seedcorn_tests::model::batch;
use seedcorn_tests::scratch::{Scratch, Tokens, samples};

/// Sums in another order may differ by this much, relatively.
const CLOSE: f64 = 1e-5;
/// In bf16 a sum that differs in its last bit can round an operand of the next product to its neighbour, 2^-8 away, and
/// each step widens that. Measured over the tiers and four steps: at most 2.2e-4 of the loss and 1.2e-3 of the
/// gradient norm; below 1e-5 in the first step.
const CLOSE_BF16: f64 = 2.5e-3;

/// A model, how it computes, and how much its losses may differ.
const VARIANTS: [(&str, [&str; 2], f64); 2] = [
    ("llama", ["model.compute=f32", "optimizer.lr=1e-2"], CLOSE),
    ("wide", ["model.compute=bf16", "optimizer.lr=1e-3"], CLOSE_BF16),
];

fn assert_close(what: &str, got: &[f64], expected: &[f64], close: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (step, (got, expected)) in got.iter().zip(expected).enumerate() {
        let relative = (got / expected - 1.0).abs();
        assert!(relative < close, "{what}: step {} has {got}, expected {expected}", step + 1);
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
    for (model, [compute, rate], close) in VARIANTS {
        let scratch = Scratch::new(model, &uneven());
        let run = |micro_batch: u64| {
            let output = format!("micro-{micro_batch}");
            let size = format!("train.micro_batch={micro_batch}");
            scratch.train(&output, &[compute, rate, &size]).expect("a finished run");
            (scratch.steps(&output, "loss"), scratch.steps(&output, "grad_norm"))
        };
        let one = run(1);
        assert_eq!(one.0.len(), 4);
        for micro_batch in [2, 8] {
            let (losses, norms) = run(micro_batch);
            assert_close(&format!("{model}: loss at micro-batch {micro_batch}"), &losses, &one.0, close);
            assert_close(&format!("{model}: norm at micro-batch {micro_batch}"), &norms, &one.1, close);
        }
    }
}

#[test]
fn packing_changes_nothing() {
    for (model, [compute, rate], close) in VARIANTS {
        let scratch = Scratch::new(model, &uneven());
        let packing =
            ["data.packing=true", "data.max_length=48", "train.batch_size=1", "train.micro_batch=1"];
        let prepared = scratch.prepare("packed", &packing).expect("prepared");
        let packs = Stream::new(prepared.dataset.clone(), prepared.stream.clone()).expect("a stream");
        let packs = packs.units_per_epoch();
        assert!((2..8).contains(&packs), "{packs} packs of 8 samples");
        // All samples are in each step, so the order of epochs does not matter.
        let all = format!("train.batch_size={packs}");
        let packed = [compute, rate, packing[0], packing[1], &all, "train.micro_batch=1"];
        scratch.train("packed", &packed).expect("a finished run");
        scratch.train("plain", &[compute, rate]).expect("a finished run");
        for what in ["loss", "grad_norm", "trained_tokens"] {
            let (packed, plain) = (scratch.steps("packed", what), scratch.steps("plain", what));
            assert_close(&format!("{model}: {what}"), &packed, &plain, close);
        }
    }
}

/// Means of means weigh a sample with one trained token like one with thirty.
#[test]
fn every_trained_token_weighs_the_same() {
    let samples = uneven();
    let scratch = Scratch::new("llama", &samples);
    scratch.train("run", &[]).expect("a finished run");
    let prepared = scratch.prepare("again", &[]).expect("prepared");
    let model = prepared.base.load(precision(&prepared.recipe.model), &Device::flex()).expect("loaded");
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
    assert_close("the first loss", &scratch.steps("run", "loss")[..1], &[of_tokens], CLOSE);
    assert!((of_samples / of_tokens - 1.0).abs() > 1e-3, "the two means are too near to tell apart");
    assert_eq!(scratch.steps("run", "trained_tokens"), [1.0, 2.0, 3.0, 4.0].map(|steps| steps * tokens));
}
