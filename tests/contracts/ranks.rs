//! Any number of data ranks that divides the micro-batches of a step gives the same bits, and a run may go on with
//! another number than it started with.

use seedcorn_tests::scratch::{Scratch, Tokens, samples};

/// `(model, settings, numbers of ranks)`. Micro-batches of a step: 4, 6, 12, 8.
const VARIANTS: [(&str, &[&str], &[u64]); 4] = [
    ("llama", &["adapter.dropout=0.1"], &[2, 4]),
    ("qwen3", &["train.batch_size=12", "data.packing=true", "model.quantize=nf4"], &[2, 3, 6]),
    ("mistral-swa", &["train.micro_batch=1", "train.batch_size=12", "adapter.dropout=0.2"], &[4, 12]),
    ("wide", &["train.micro_batch=1", "model.quantize=nf4", "model.compute=bf16"], &[2, 8]),
];

/// Samples of which some stretches are not trained at all, so that steps have micro-batches that are left out.
fn patchy(count: usize, tokens: std::ops::Range<u64>, seed: u64) -> Vec<Tokens> {
    let patch = |(index, (ids, labels)): (usize, Tokens)| match index % 7 {
        // The first label is never trained on: this sample stays, and trains nothing.
        3 | 4 => (
            ids,
            std::iter::once(labels.last().copied().unwrap_or(1))
                .chain(vec![-100; labels.len() - 1])
                .collect(),
        ),
        _ => (ids, labels),
    };
    samples(count, tokens, seed).into_iter().enumerate().map(patch).collect()
}

fn ranks(count: u64) -> String {
    format!("parallel.data={count}")
}

fn with<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [first, more].concat()
}

#[test]
fn give_the_bits_of_one() {
    for (model, variant, counts) in VARIANTS {
        let scratch = Scratch::new(model, &samples(50, 40..120, 31));
        let more = with(variant, &["data.eval_count=7", "eval.every_steps=2"]);
        scratch.train("one", &more).expect("a finished run");
        let one = scratch.result("one");
        for &count in counts {
            let (output, ranks) = (format!("ranks-{count}"), ranks(count));
            scratch.train(&output, &with(&more, &[&ranks])).expect("a finished run");
            assert!(scratch.result(&output) == one, "{model} on {count} ranks");
        }
    }
}

/// What a step trains decides the tree, so ranks may have nothing to do.
#[test]
fn share_out_what_is_trained() {
    let scratch = Scratch::new("llama", &patchy(30, 5..30, 32));
    let more = ["train.micro_batch=1", "data.shuffle=false", "adapter.dropout=0.1", "train.steps=6"];
    scratch.train("one", &more).expect("a finished run");
    for count in [2, 4, 8] {
        let (output, ranks) = (format!("ranks-{count}"), ranks(count));
        scratch.train(&output, &with(&more, &[&ranks])).expect("a finished run");
        assert!(scratch.result(&output) == scratch.result("one"), "{count} ranks");
    }
}

#[test]
fn resume_what_others_have_started() {
    let scratch = Scratch::new("llama", &samples(40, 5..30, 33));
    let more = [
        "adapter.dropout=0.1",
        "data.packing=true",
        "data.eval_count=5",
        "eval.every_steps=1",
        "checkpoint.every_steps=1",
        "checkpoint.keep=100",
        "train.steps=6",
    ];
    scratch.train("one", &more).expect("a finished run");
    for (first, then, stop) in [(1, 2, 2), (2, 1, 3), (4, 2, 5)] {
        let output = format!("from-{first}-to-{then}");
        scratch.train(&output, &with(&more, &[&ranks(first)])).expect("a finished run");
        // As a kill after the step's checkpoint leaves it.
        fs_err::remove_dir_all(scratch.path(&output).join("adapter")).expect("removed");
        for later in stop + 1..=6 {
            let folder = format!("checkpoints/step-{later:06}");
            fs_err::remove_dir_all(scratch.path(&output).join(folder)).expect("removed");
        }
        let finished = scratch.resume(&output, &with(&more, &[&ranks(then)])).expect("a finished run");
        assert!(finished.first_eval.is_none(), "it started again");
        assert!(scratch.result(&output) == scratch.result("one"), "from {first} to {then} ranks");
    }
}

/// `(model, settings, numbers of ranks)` of runs whose ranks keep a part of the frozen weights each: every storage, tied
/// and own heads, and blocks that are kept, computed again, or some of each; one has a tokenizer, and answers a question.
/// Micro-batches of a step: 4, 6, 12, 4, 6, 4.
const PARTS: [(&str, &[&str], &[u64]); 6] = [
    ("llama", &["adapter.dropout=0.1", "train.activation=keep"], &[2, 4]),
    ("qwen3", &["train.batch_size=12", "data.packing=true", "model.quantize=nf4"], &[2, 3]),
    ("mistral-swa", &["train.micro_batch=1", "train.batch_size=12", "model.quantize=int8"], &[4]),
    ("llama-tied", &["model.quantize=nf4", "model.double_quant=false", "train.activation=recompute"], &[4]),
    (
        "wide",
        &["train.micro_batch=1", "train.batch_size=6", "model.compute=bf16", "train.activation=auto"],
        &[2, 3],
    ),
    ("gguf-llama", &["model.quantize=nf4"], &[2]),
];

#[test]
fn share_the_frozen_weights() {
    for (model, variant, counts) in PARTS {
        let scratch = Scratch::new(model, &samples(50, 20..60, 35));
        let more = with(variant, &["data.eval_count=7", "eval.every_steps=2"]);
        let shown = scratch.train("one", &more).expect("a finished run").shown;
        assert_eq!(shown.is_some(), model == "gguf-llama");
        let one = scratch.result("one");
        for &count in counts {
            let (output, ranks) = (format!("ranks-{count}"), ranks(count));
            let more = with(&more, &[&ranks, "parallel.shard_base=true"]);
            let finished = scratch.train(&output, &more).expect("a finished run");
            assert!(scratch.result(&output) == one, "{model} on {count} ranks");
            assert_eq!(finished.shown, shown, "{model} on {count} ranks");
        }
    }
}

/// Ranks with nothing to do still hand out what they keep, and any run goes on where another stopped.
#[test]
fn share_the_frozen_weights_of_uneven_steps() {
    let scratch = Scratch::new("llama", &patchy(30, 5..30, 36));
    let more = [
        "train.micro_batch=1",
        "data.shuffle=false",
        "adapter.dropout=0.1",
        "train.steps=6",
        "checkpoint.every_steps=1",
        "checkpoint.keep=100",
        "data.eval_count=3",
    ];
    scratch.train("one", &more).expect("a finished run");
    let (parts, whole) = ("parallel.shard_base=true", "parallel.shard_base=false");
    for (first, then, [before, after], stop) in
        [(1, 2, [whole, parts], 2), (4, 8, [parts, parts], 3), (8, 1, [parts, whole], 5)]
    {
        let output = format!("from-{first}-to-{then}");
        scratch.train(&output, &with(&more, &[&ranks(first), before])).expect("a finished run");
        assert!(scratch.result(&output) == scratch.result("one"), "{first} ranks");
        // As a kill after the step's checkpoint leaves it.
        fs_err::remove_dir_all(scratch.path(&output).join("adapter")).expect("removed");
        for later in stop + 1..=6 {
            let folder = format!("checkpoints/step-{later:06}");
            fs_err::remove_dir_all(scratch.path(&output).join(folder)).expect("removed");
        }
        scratch.resume(&output, &with(&more, &[&ranks(then), after])).expect("a finished run");
        assert!(scratch.result(&output) == scratch.result("one"), "from {first} to {then} ranks");
    }
}

/// The order of ranks is not that of the tree: other last bits, the same way down.
#[test]
fn may_add_in_an_order_of_their_own() {
    let scratch = Scratch::new("llama", &samples(50, 40..120, 35));
    let fast = |output: &str, count| {
        let ranks = ranks(count);
        scratch.train(output, &["train.steps=6", "parallel.reduction=fast", &ranks]).expect("a finished run");
    };
    scratch.train("tree", &["train.steps=6", "parallel.data=4"]).expect("a finished run");
    fast("one", 1);
    assert!(scratch.result("one") == scratch.result("tree"), "one rank has nothing to add");
    fast("four", 4);
    fast("again", 4);
    assert!(scratch.result("four") == scratch.result("again"), "the order of ranks is an order");
    assert!(scratch.result("four") != scratch.result("tree"), "the setting has no effect");
    for key in ["loss", "grad_norm"] {
        let pairs = scratch.steps("four", key).into_iter().zip(scratch.steps("tree", key));
        for (step, (fast, tree)) in pairs.enumerate() {
            // Sums of four numbers in f32, rounded otherwise, carried through six updates.
            assert!((fast - tree).abs() <= 1e-5 * tree.abs(), "{key} {step}: {fast} and {tree}");
        }
    }
}

#[test]
fn keep_the_digest_of_the_recipe() {
    let scratch = Scratch::new("llama", &samples(16, 5..30, 34));
    let one = scratch.prepare("one", &[]).expect("prepared").recipe;
    let more = ["parallel.data=2", "parallel.shard_base=true", "parallel.timeout_seconds=5"];
    let two = scratch.prepare("one", &more).expect("prepared").recipe;
    assert_eq!(one.digest(), two.digest());
    let tree = scratch.prepare("one", &["parallel.reduction=tree"]).expect("prepared").recipe;
    assert_eq!((one.digest(), one.to_toml()), (tree.digest(), tree.to_toml()));
    // It decides bits, for any number of ranks alike.
    let fast = scratch.prepare("one", &["parallel.reduction=fast"]).expect("prepared").recipe;
    let of_two = scratch.prepare("one", &["parallel.reduction=fast", "parallel.data=2"]).expect("prepared");
    assert!(fast.digest() != one.digest() && fast.digest() == of_two.recipe.digest());
}
