//! Ten steps of training against PEFT, by the recipe and the loop that a user runs.

use seedcorn_tests::model::{fixture, json, relative_norm, tensors};
use seedcorn_tests::scratch::Scratch;

// Relative differences that are allowed; what was measured on x86-64 is behind each.

/// Loss of a step: 2e-7.
const LOSS: f64 = 1e-5;
/// Gradient norm of a step: 3e-7.
const NORM: f64 = 1e-5;
/// Norm of the difference over the norm of the values, for each factor after the last step: 3e-6.
const FACTOR: f64 = 1e-4;

#[expect(clippy::print_stdout, reason = "shown with --nocapture, to see how far the bounds are")]
fn compare(case: &str, model: &str, quantize: &str) {
    let folder = fixture("training").join(case);
    let reference = json(&folder.join("training.json"));
    assert_eq!(reference["model"], model);
    let list = |key: &str| -> Vec<f64> {
        reference[key].as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
    };
    let (losses, norms) = (list("loss"), list("grad_norm"));
    let scratch = Scratch::with_recipe(
        &format!(
            "version = 1\noutput = 'run'\n\
             [model]\nsource = '{}'\nquantize = '{quantize}'\n\
             [adapter]\nfrom = '{}'\n\
             [data]\nmax_length = 32\npacking = false\nshuffle = false\n\
             [[data.train]]\nsource = '{}'\nformat = 'tokens'\n\
             [train]\nbatch_size = {rows}\nmicro_batch = 2\nsteps = {}\nmax_grad_norm = {}\n\
             [optimizer]\nlr = {}\nweight_decay = {}\n\
             [schedule]\nkind = 'constant'\n",
            fixture("models").join(model).display(),
            folder.display(),
            fixture("training").join("batches.jsonl").display(),
            losses.len(),
            reference["max_grad_norm"],
            reference["lr"],
            reference["weight_decay"],
            rows = reference["rows"],
        ),
        &[],
    );
    let finished = scratch.train("run", &[]).expect("a finished run");

    let check = |what: &str, expected: &[f64], tolerance: f64| {
        let got = scratch.steps("run", what);
        assert_eq!(got.len(), expected.len(), "{case}: {what}");
        let worst = got.iter().zip(expected).map(|(got, expected)| (got / expected - 1.0).abs());
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < tolerance, "{case}: {what} is {got:?}, PEFT has {expected:?}");
        worst
    };
    let loss = check("loss", &losses, LOSS);
    let norm = check("grad_norm", &norms, NORM);

    let (before, after) =
        (tensors(&folder.join("adapter_model.safetensors")), tensors(&folder.join("final.safetensors")));
    let ours = tensors(&finished.adapter.join("adapter_model.safetensors"));
    assert!(ours.keys().eq(after.keys()), "{case}: the same tensors");
    let mut adapter = 0.0f64;
    for (name, expected) in &after {
        let found = relative_norm(&ours[name].f32s(), &expected.values);
        assert!(found < FACTOR, "{case}: `{name}` differs by {found:e}");
        assert_ne!(ours[name], before[name], "{case}: `{name}` was trained");
        adapter = adapter.max(found);
    }
    println!("{case}: largest relative difference: loss {loss:e}, norm {norm:e}, adapter {adapter:e}");
}

#[test]
fn lora() {
    compare("llama-lora", "llama", "none");
}

#[test]
fn lora_with_head_norms() {
    compare("qwen3-lora", "qwen3", "none");
}

#[test]
fn rank_stabilised() {
    compare("llama-rslora", "llama", "none");
}

#[test]
fn rank_and_alpha_patterns() {
    compare("llama-patterns", "llama", "none");
}

#[test]
fn four_bit_base() {
    compare("llama-nf4", "llama", "nf4");
}
