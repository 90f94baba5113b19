//! Sums and verdicts. That a plan is what runs need is shown by `tests/contracts/plan.rs`.

use serde_json::json;

use super::fit::judge;
use super::{Fit, Memory, Subject};
use crate::error::Explain;
use crate::log::MachineMemory;
use crate::parallel::{Mesh, Traffic};
use crate::recipe;
use seedcorn_data::source::Resolver;

const THREADS: usize = 2;

/// A run of a model of which there is only the configuration.
fn subject(overrides: &[&str]) -> Subject {
    let folder = tempfile::tempdir().expect("temp folder");
    let config = json!({
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
    });
    fs_err::write(folder.path().join("config.json"), config.to_string()).expect("written");
    let text = "version = 1\noutput = 'run'\n[model]\nsource = '.'\n[adapter]\nrank = 8\nalpha = 8\n\
                [data]\nmax_length = 2048\npacking = true\n[[data.train]]\nsource = 'd.jsonl'\nformat = 'tokens'\n\
                [train]\nbatch_size = 64\nmicro_batch = 4\nsteps = 4\nactivation = 'keep'\n[optimizer]\nlr = 1e-4\n";
    fs_err::write(folder.path().join("recipe.toml"), text).expect("written");
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let recipe = recipe::load(&folder.path().join("recipe.toml"), &overrides).expect("a recipe");
    Subject::imagined(recipe, folder.path(), &Resolver::from_env()).expect("a model")
}

#[test]
fn items_add_up() {
    let memory = Memory::new(&subject(&[]), THREADS);
    let sum: u64 = memory.items.iter().map(super::Item::bytes).sum();
    let step = memory.parts.iter().find(|part| part.part == "step").expect("a step").bytes;
    assert_eq!((sum, memory.peak, memory.peak_of_all), (step, step, step));
    let item = |name: &str| memory.items.iter().find(|item| item.item == name).expect("an item").clone();
    let values = subject(&[]).trained_values();
    // q and o, k and v, gate and up and down, of 4 blocks.
    let sides = 2 * (256 + 256) + 2 * (256 + 128) + 3 * (256 + 512);
    assert_eq!(values, 4 * 8 * sides);
    assert_eq!((item("adapter").own, item("optimizer").own), (4 * values, 8 * values));
    // 16 micro-batches: with the last one, the sums of 8, 4, 2 and 1 wait.
    assert_eq!(item("gradients").own, 5 * 4 * values);
    assert_eq!(item("embedding").shared, item("head").shared);
}

#[test]
fn ranks_of_one_process_share_what_is_frozen() {
    let memory = Memory::new(&subject(&["parallel.data=4"]), THREADS);
    let sum = |of: fn(&super::Item) -> u64| memory.items.iter().map(of).sum::<u64>();
    assert_eq!(memory.peak_of_all, sum(|item| item.shared) + 4 * sum(|item| item.own));
    assert!(memory.parts.iter().any(|part| part.part == "sum over ranks"));
    // Four micro-batches a rank leave fewer sums to wait than sixteen.
    let gradients =
        |memory: &Memory| memory.items.iter().find(|item| item.item == "gradients").expect("an item").own;
    assert_eq!(5 * gradients(&memory), 3 * gradients(&Memory::new(&subject(&[]), THREADS)));
}

#[test]
fn a_run_is_refused_only_where_it_cannot_fit() {
    let four = subject(&["parallel.data=4"]);
    let subject = subject(&[]);
    let peak = Memory::new(&subject, rayon::current_num_threads()).peak_of_all;
    let judged =
        |total: u64, available: u64| judge(&subject, MachineMemory { total, available, swap: 0 }, false);
    assert!(judged(2 * peak, peak).expect("enough").is_none());
    let warning = judged(2 * peak, peak - 1).expect("enough in all").expect("a warning");
    assert!(warning.starts_with("the run needs about "), "{warning}");
    assert!(judged(peak / 100 * 85, peak / 2).expect("it may be enough").is_some());
    let swap = MachineMemory { total: peak / 2, available: peak / 2, swap: peak };
    assert!(judge(&subject, swap, false).expect("enough with swap").is_some());
    // A rank that was launched needs what it needs itself.
    let own = Memory::new(&four, rayon::current_num_threads()).peak;
    let machine = |bytes| MachineMemory { total: 2 * bytes, available: bytes, swap: 0 };
    assert!(judge(&four, machine(own), true).expect("enough").is_none());
    assert!(judge(&four, machine(own - 1), true).expect("enough in all").is_some());
    let error = crate::error::Explained::from(judged(peak / 2, peak / 2).expect_err("half is not enough"));
    assert!(error.to_string().contains("this machine has"), "{error}");
    assert!(error.hint().expect("a hint").contains("train.activation = \"recompute\""));
}

#[test]
fn what_helps_is_tried_until_the_run_fits() {
    let subject = subject(&["train.micro_batch=4"]);
    let peak = |memory: &Memory| memory.peak;
    let whole = Fit::new(&subject, THREADS, u64::MAX, peak);
    assert!(whole.fits && whole.helps.is_empty());
    let changes = |memory: u64| {
        let fit = Fit::new(&subject, THREADS, memory, peak);
        assert!(!fit.fits);
        let mut bytes = fit.needed;
        for (change, less) in &fit.helps {
            assert!(*less < bytes, "{change} needs {less} after {bytes}");
            bytes = *less;
        }
        fit.helps
    };
    let first = changes(whole.needed - 1);
    assert_eq!(first.len(), 1);
    let all = changes(1);
    let names: Vec<&str> = all.iter().map(|(change, _)| change.as_str()).collect();
    assert_eq!(
        names,
        ["train.activation = \"recompute\"", "train.micro_batch = 1", "model.quantize = \"nf4\""]
    );
    assert_eq!(all[0], first[0]);
    let quantized =
        subject_bytes(&["train.activation=recompute", "train.micro_batch=1", "model.quantize=nf4"]);
    assert_eq!(all[2].1, quantized, "not what the changed recipe needs");
}

fn subject_bytes(overrides: &[&str]) -> u64 {
    Memory::new(&subject(overrides), THREADS).peak
}

#[test]
fn a_thousand_ranks_are_counted() {
    let many = subject(&["train.batch_size=4096", "parallel.data=1024"]);
    let traffic = many.traffic();
    assert_eq!(
        traffic.most_of_step(),
        Traffic::new(Mesh::of_data(1024), 1024, many.trained_values() as usize).of_step(1023)
    );
    let alone = subject(&["train.batch_size=4"]);
    let of = |subject: &Subject| {
        let items = Memory::new(subject, THREADS).items;
        items.into_iter().map(|item| (item.item, item.own)).collect::<Vec<_>>()
    };
    assert_eq!(of(&many), of(&alone), "a rank needs no more for there being others");
}
