//! Ranks that hold one model together train what one rank would, within rounding; the same mesh gives the same bits, and
//! any number of data ranks beside it too.

use seedcorn_tests::scratch::{Scratch, samples};

const MODELS: [&str; 2] = ["sliced-llama", "sliced-qwen3"];
/// Loss of a step, relative to that of one rank, in f32.
const LOSS: f64 = 1e-5;
/// Trained values. The update divides a gradient by its own size, so that even one that is all rounding moves a value by
/// the learning rate at first: hence a smaller one than elsewhere.
const VALUES: f64 = 1e-4;
const RATE: &str = "optimizer.lr=1e-3";

fn mesh(data: u64, tensor: u64) -> [String; 2] {
    [format!("parallel.data={data}"), format!("parallel.tensor={tensor}")]
}

fn train(scratch: &Scratch, output: &str, more: &[&str], [data, tensor]: [u64; 2]) {
    let mesh = mesh(data, tensor);
    let all = [more, &[RATE, &mesh[0], &mesh[1]]].concat();
    scratch.train(output, &all).expect("a finished run");
}

/// Compares losses and the exported adapter with those of one rank.
fn assert_near(scratch: &Scratch, output: &str, what: &str) {
    for key in ["loss", "eval_loss", "grad_norm"] {
        let (one, got) = (scratch.steps("one", key), scratch.steps(output, key));
        assert!(!one.is_empty() && one.len() == got.len(), "{what}: {key}");
        for (step, (one, got)) in one.iter().zip(&got).enumerate() {
            let off = (got / one - 1.0).abs();
            assert!(off <= LOSS, "{what}: {key} {step} is {got}, {one} on one rank: {off:.1e}");
        }
    }
    let (one, got) = (scratch.adapter("one"), scratch.adapter(output));
    assert!(one.keys().eq(got.keys()), "{what}: other tensors");
    for (name, one) in &one {
        let got = &got[name];
        assert_eq!(got.shape, one.shape, "{what}: {name}");
        let off = one.values.iter().zip(&got.values).map(|(one, got)| (one - got).abs()).fold(0.0, f64::max);
        assert!(off <= VALUES, "{what}: {name} is off by {off:.1e}");
    }
}

#[test]
fn train_what_one_rank_trains() {
    for model in MODELS {
        let scratch = Scratch::new(model, &samples(24, 5..40, 51));
        for (variant, precision) in [
            ("f32", ["model.quantize=none", "adapter.dropout=0.1"].as_slice()),
            ("nf4", &["model.quantize=nf4", "data.packing=true"]),
            ("nf4-single", &["model.quantize=nf4", "model.double_quant=false", "train.activation=keep"]),
            ("int8", &["model.quantize=int8", "adapter.dropout=0.3"]),
        ] {
            let more = [precision, &["data.eval_count=3", "eval.every_steps=2"]].concat();
            train(&scratch, "one", &more, [1, 1]);
            for shape in [[1, 2], [1, 4], [2, 2]] {
                let output = format!("{variant}-{}-{}", shape[0], shape[1]);
                train(&scratch, &output, &more, shape);
                assert_near(&scratch, &output, &format!("{model} {output}"));
                fs_err::remove_dir_all(scratch.path(&output)).expect("removed");
            }
            fs_err::remove_dir_all(scratch.path("one")).expect("removed");
        }
    }
}

#[test]
fn give_the_same_bits_again_and_beside_any_number_of_data_ranks() {
    let scratch = Scratch::new("sliced-qwen3", &samples(24, 5..40, 52));
    let more = ["model.quantize=nf4", "adapter.dropout=0.1", "data.eval_count=3"];
    for (output, shape) in [("first", [1, 2]), ("again", [1, 2]), ("two", [2, 2]), ("four", [4, 2])] {
        train(&scratch, output, &more, shape);
        assert!(scratch.result(output) == scratch.result("first"), "{output}");
    }
    train(&scratch, "one", &more, [1, 1]);
    assert!(scratch.result("one") != scratch.result("first"), "the model was not cut");
}

/// Data ranks may share what a slice takes, too.
#[test]
fn sharing_the_frozen_weights_of_slices_changes_no_bit() {
    for (model, more) in [
        ("sliced-llama", ["model.quantize=nf4", "train.activation=keep", "data.eval_count=3"]),
        ("sliced-qwen3", ["model.quantize=int8", "adapter.dropout=0.1", "data.eval_count=3"]),
    ] {
        let scratch = Scratch::new(model, &samples(24, 5..40, 54));
        train(&scratch, "each", &more, [2, 2]);
        train(&scratch, "shared", &[more.as_slice(), &["parallel.shard_base=true"]].concat(), [2, 2]);
        assert!(scratch.result("shared") == scratch.result("each"), "{model}");
    }
}

#[test]
fn resume_on_another_mesh() {
    let scratch = Scratch::new("sliced-llama", &samples(24, 5..40, 53));
    let more = [
        "adapter.dropout=0.1",
        "data.eval_count=3",
        "eval.every_steps=1",
        "checkpoint.every_steps=1",
        "checkpoint.keep=100",
    ];
    train(&scratch, "one", &more, [1, 1]);
    train(&scratch, "four", &more, [1, 4]);
    for (from, to, exact) in [([1, 1], [1, 2], None), ([1, 4], [2, 1], None), ([1, 4], [2, 4], Some("four"))]
    {
        let output = format!("{from:?}-{to:?}");
        train(&scratch, &output, &more, from);
        // As a kill after the second step's checkpoint leaves it.
        fs_err::remove_dir_all(scratch.path(&output).join("adapter")).expect("removed");
        for later in [3, 4] {
            fs_err::remove_dir_all(scratch.path(&output).join(format!("checkpoints/step-{later:06}")))
                .expect("removed");
        }
        let mesh = mesh(to[0], to[1]);
        let all = [more.as_slice(), &[RATE, &mesh[0], &mesh[1]]].concat();
        let finished = scratch.resume(&output, &all).expect("a finished run");
        assert!(finished.first_eval.is_none(), "it started again");
        assert_near(&scratch, &output, &output);
        if let Some(exact) = exact {
            assert!(scratch.result(&output) == scratch.result(exact), "{output}");
        }
    }
}
