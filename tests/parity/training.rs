//! Ten steps of training against PEFT, by the recipe and the loop that a user runs.

use seedcorn_tests::model::{fixture, json, relative_norm, tensors};
use seedcorn_tests::scratch::Scratch;

/// Relative differences that are allowed.
struct Tolerance {
    loss: f64,
    grad_norm: f64,
    /// Norm of the difference over the norm of the values, for each factor after the last step.
    adapter: f64,
}

const DENSE: Tolerance = Tolerance { loss: 1e-3, grad_norm: 5e-3, adapter: 1e-3 };
const NF4: Tolerance = Tolerance { loss: 5e-3, grad_norm: 5e-3, adapter: 5e-3 };

fn compare(case: &str, model: &str, quantize: &str, tolerance: &Tolerance) {
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
    let loss = check("loss", &losses, tolerance.loss);
    let norm = check("grad_norm", &norms, tolerance.grad_norm);

    let (before, after) =
        (tensors(&folder.join("adapter_model.safetensors")), tensors(&folder.join("final.safetensors")));
    let ours = tensors(&finished.adapter.join("adapter_model.safetensors"));
    assert!(ours.keys().eq(after.keys()), "{case}: the same tensors");
    let mut adapter = 0.0f64;
    for (name, expected) in &after {
        let found = relative_norm(&ours[name].f32s(), &expected.values);
        assert!(found < tolerance.adapter, "{case}: `{name}` differs by {found:e}");
        assert_ne!(ours[name], before[name], "{case}: `{name}` was trained");
        adapter = adapter.max(found);
    }
    println!("{case}: largest relative difference: loss {loss:e}, norm {norm:e}, adapter {adapter:e}");
}

#[test]
fn lora() {
    compare("llama-lora", "llama", "none", &DENSE);
}

#[test]
fn lora_with_head_norms() {
    compare("qwen3-lora", "qwen3", "none", &DENSE);
}

#[test]
fn rank_stabilised() {
    compare("llama-rslora", "llama", "none", &DENSE);
}

#[test]
fn rank_and_alpha_patterns() {
    compare("llama-patterns", "llama", "none", &DENSE);
}

#[test]
fn four_bit_base() {
    compare("llama-nf4", "llama", "nf4", &NF4);
}
