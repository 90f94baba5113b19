use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Dataset, LoadOptions, OnLong, SourceSpec, Split};
use crate::batch::IGNORE;
use crate::error::Error;
use crate::format::Format;
use crate::mask::TrainOn;
use crate::stream::{Stream, StreamConfig};
use crate::tokenizer::tests::{cases, fixture, tokenizer};
use crate::tokenizer::{Tokenizer, TokenizerParts};

/// A folder of record files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn source(&self, name: &str, format: Format, records: &[Value]) -> SourceSpec {
        let path: PathBuf = self.0.path().join(format!("{name}.jsonl"));
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        fs_err::write(&path, lines.join("\n")).unwrap();
        SourceSpec {
            path,
            file_name: name.to_owned(),
            name: name.to_owned(),
            format,
            fields: BTreeMap::new(),
            weight: 1.0,
            train_on: TrainOn::Assistant,
        }
    }
}

/// What is trained of the first sample, as text, and the whole sample, as text.
fn trained(dataset: &Dataset, tokenizer: &Tokenizer) -> (String, String) {
    let views = dataset.inspect(0, tokenizer).unwrap().unwrap();
    let text = |trained_only: bool| {
        views.iter().filter(|view| view.trained || !trained_only).map(|view| view.text.as_str()).collect()
    };
    (text(true), text(false))
}

fn load_one(source: &SourceSpec, tokenizer: &Tokenizer) -> Dataset {
    Dataset::load(std::slice::from_ref(source), Some(tokenizer), &LoadOptions::default()).unwrap()
}

#[test]
fn each_format_trains_its_answer_and_its_end() {
    let files = Files::new();
    let chat = tokenizer(Some("chatml.jinja"));
    let plain = tokenizer(None);
    let (user, end) = ("<|im_start|>user\n", "<|im_end|>");
    let turn = json!({"messages": cases()["conversations"]["single"]});
    let alpaca = json!({"instruction": "Say", "input": "Hi", "output": "Hello!"});
    let pair = json!({"prompt": "a b", "completion": " c"});
    let header = "Below is an instruction that describes a task, paired with an input that provides further \
                  context. Write a response that appropriately completes the request.";
    for (tokenizer, format, record, answer, whole) in [
        (
            &chat,
            Format::Chat,
            &turn,
            "Hello!<|im_end|>",
            format!("{user}Hi{end}\n<|im_start|>assistant\nHello!{end}\n"),
        ),
        (
            &chat,
            Format::Instruction,
            &alpaca,
            "Hello!<|im_end|>",
            format!("{user}Say\n\nHi{end}\n<|im_start|>assistant\nHello!{end}\n"),
        ),
        (
            &plain,
            Format::Instruction,
            &alpaca,
            "Hello!<|im_end|>",
            format!("{header}\n\n### Instruction:\nSay\n\n### Input:\nHi\n\n### Response:\nHello!{end}"),
        ),
        (&chat, Format::Completion, &pair, " c<|im_end|>", format!("a b c{end}")),
    ] {
        let dataset = load_one(&files.source("a", format, std::slice::from_ref(record)), tokenizer);
        assert_eq!(trained(&dataset, tokenizer), (answer.to_owned(), whole), "{format:?}");
        assert_eq!(dataset.statistics()[0].missing_eos, 0);
    }
    // A text is trained whole; only its first token has nothing to be predicted from.
    let dataset = load_one(&files.source("a", Format::Text, &[json!({"text": "abc def"})]), &plain);
    let sample = &dataset.samples()[0];
    assert!(sample.labels.iter().zip(&sample.input_ids).all(|(&label, &id)| label == id as i32));
    assert_eq!(sample.input_ids.last(), Some(&2));
}

#[test]
fn begin_and_end_stand_once() {
    let files = Files::new();
    let folder = Tokenizer::from_folder(&fixture("")).unwrap();
    let texts = [json!({"text": "<s>abc<|im_end|>"}), json!({"text": "abc"})];
    let dataset = load_one(&files.source("a", Format::Text, &texts), &folder);
    assert_eq!(dataset.samples()[0].input_ids, dataset.samples()[1].input_ids);
    assert_eq!(dataset.samples()[0].input_ids[0], 3);
    assert_eq!(dataset.statistics()[0].double_bos, 1);
}

#[test]
fn a_template_that_forgets_the_end_is_counted() {
    let files = Files::new();
    let source = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";
    let mut parts = tokenizer(None).parts().clone();
    parts.chat_template = Some(source.to_owned());
    let tokenizer = Tokenizer::from_parts(parts).unwrap();
    let record = json!({"messages": cases()["conversations"]["multi"]});
    let dataset = load_one(&files.source("a", Format::Chat, &[record]), &tokenizer);
    assert_eq!(trained(&dataset, &tokenizer).0, " Hello! Yes.\n\nNo.");
    assert_eq!(dataset.statistics()[0].missing_eos, 1);
}

#[test]
fn fields_have_the_names_that_the_recipe_gives() {
    let files = Files::new();
    let tokenizer = tokenizer(None);
    let record = json!({"question": "Say hi", "answer": "Hello!", "output": "not this", "input": "nor this"});
    let names = [("instruction", "question"), ("output", "answer"), ("input", "absent")];
    let names = names.map(|(ours, own)| (ours.to_owned(), own.to_owned()));
    let source = SourceSpec {
        fields: BTreeMap::from(names),
        ..files.source("a", Format::Instruction, std::slice::from_ref(&record))
    };
    let plain = json!({"instruction": "Say hi", "output": "Hello!"});
    let plain = files.source("b", Format::Instruction, &[plain]);
    let (mapped, plain) = (load_one(&source, &tokenizer), load_one(&plain, &tokenizer));
    assert_eq!(mapped.samples()[0].input_ids, plain.samples()[0].input_ids);
    // What is mapped is not read from anywhere else.
    let wrong = SourceSpec {
        fields: BTreeMap::from([("output".to_owned(), "replies".to_owned())]),
        ..files.source("c", Format::Instruction, &[json!({"instruction": "Say hi", "output": "Hello!"})])
    };
    let error = Dataset::load(&[wrong], Some(&tokenizer), &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("`output`"), "{error}");
    assert!(error.hint().unwrap().contains("`fields`"), "{error}");
}

#[test]
fn a_long_text_is_read_in_stretches() {
    let files = Files::new();
    let ids: Vec<u32> = (0..10).collect();
    let labels: Vec<i32> = (0..10).map(|at| if (4..8).contains(&at) { IGNORE } else { at }).collect();
    let records = [json!({"input_ids": ids, "labels": labels}), json!({"input_ids": [1, 2, 3]})];
    let source = files.source("a", Format::Tokens, &records);
    let options =
        LoadOptions { max_length: 4, on_long: OnLong::Split, vocab_size: Some(10), ..LoadOptions::default() };
    let dataset = Dataset::load(&[source], None, &options).unwrap();
    let ids: Vec<&[u32]> = dataset.samples().iter().map(|sample| sample.input_ids.as_slice()).collect();
    // The stretch in the middle trains nothing.
    assert_eq!(ids, [&[0, 1, 2, 3][..], &[8, 9], &[1, 2, 3]]);
    let counted = &dataset.statistics()[0];
    assert_eq!((counted.records, counted.samples, counted.split, counted.truncated), (2, 3, 1, 0));
    assert_eq!(counted.tokens, 9);
}

#[test]
fn long_samples_are_cut_or_dropped_and_counted() {
    let files = Files::new();
    let ids = |n: usize, masked: usize| {
        let labels: Vec<i32> = (0..n).map(|i| if i < masked { IGNORE } else { i as i32 }).collect();
        json!({"input_ids": (0..n).collect::<Vec<_>>(), "labels": labels})
    };
    let records = [ids(4, 0), ids(6, 2), ids(6, 4), ids(5, 5), ids(1, 0), ids(0, 0)];
    let source = files.source("a", Format::Tokens, &records);
    let load = |on_long| {
        let options = LoadOptions { max_length: 4, on_long, vocab_size: Some(10), ..LoadOptions::default() };
        Dataset::load(std::slice::from_ref(&source), None, &options).unwrap()
    };
    let cut = load(OnLong::Truncate);
    let counted = &cut.statistics()[0];
    assert_eq!((counted.records, counted.samples, counted.truncated), (6, 2, 1));
    assert_eq!((counted.dropped_truncated, counted.dropped_untrained, counted.dropped_long), (1, 3, 0));
    assert_eq!((counted.tokens, counted.trained_tokens), (8, 3 + 2));
    assert_eq!((counted.min_length, counted.median_length, counted.max_length), (4, 4, 4));
    assert_eq!(cut.samples()[1].labels, [IGNORE, IGNORE, 2, 3]);
    let dropped = load(OnLong::Drop);
    let counted = &dropped.statistics()[0];
    assert_eq!((counted.samples, counted.truncated, counted.dropped_long), (1, 0, 2));
    assert_ne!(cut.digest(), dropped.digest());
    assert_eq!(cut.digest(), load(OnLong::Truncate).digest());
}

fn numbered(files: &Files, name: &str, n: usize) -> SourceSpec {
    let records: Vec<Value> = (0..n).map(|i| json!({"input_ids": vec![i; 2 + i % 5]})).collect();
    files.source(name, Format::Tokens, &records)
}

fn options(split: Split) -> LoadOptions {
    LoadOptions { split, vocab_size: Some(1000), ..LoadOptions::default() }
}

#[test]
fn the_split_is_disjoint_and_does_not_move() {
    let files = Files::new();
    let sources = [numbered(&files, "a", 20), numbered(&files, "b", 10)];
    let load = |options: &LoadOptions| Dataset::load(&sources, None, options).unwrap();
    let indices = |dataset: &Dataset, source: usize| -> Vec<u64> {
        dataset.eval()[source].samples.iter().map(|sample| sample.index).collect()
    };
    let tenth = load(&options(Split::Fraction(0.1)));
    assert_eq!((indices(&tenth, 0).len(), indices(&tenth, 1).len()), (2, 1));
    assert_eq!(tenth.samples().len(), 27);
    let held = indices(&tenth, 0);
    assert!(tenth.samples().iter().all(|sample| sample.source != 0 || !held.contains(&sample.index)));
    let shorter = load(&LoadOptions { max_length: 3, ..options(Split::Fraction(0.1)) });
    assert_eq!(indices(&shorter, 0), held);
    let more = load(&options(Split::Count(5)));
    assert_eq!(indices(&more, 0).len(), 5);
    assert!(held.iter().all(|index| indices(&more, 0).contains(index)));
    assert!(indices(&more, 0).is_sorted());
    let other = load(&LoadOptions { seed: 1, ..options(Split::Count(5)) });
    assert_ne!(indices(&other, 0), indices(&more, 0));

    let batches: Vec<_> = more.eval()[0].batches(2).collect();
    assert_eq!(batches.len(), 3);
    assert_eq!(batches.iter().map(|batch| batch.target_tokens() as u64).sum::<u64>(), {
        more.eval()[0].target_tokens()
    });
}

#[test]
fn evaluation_files_stand_beside_the_split() {
    let files = Files::new();
    let eval = vec![numbered(&files, "held", 4)];
    let given = LoadOptions { eval, ..options(Split::None) };
    let dataset = Dataset::load(&[numbered(&files, "a", 3)], None, &given).unwrap();
    assert_eq!(dataset.eval().len(), 1);
    assert_eq!((dataset.eval()[0].name.as_str(), dataset.eval()[0].samples.len()), ("held", 4));
}

#[test]
fn faults_are_told() {
    let files = Files::new();
    let told = |sources: &[SourceSpec], options: &LoadOptions| {
        let fault = Dataset::load(sources, None, options).unwrap_err();
        (fault.to_string(), fault.hint().unwrap_or_default())
    };
    let two = numbered(&files, "a", 2);
    let one = std::slice::from_ref(&two);
    assert_eq!(told(one, &options(Split::Count(2))).0, "source `a`: the held-out split takes 2 of 2 records");
    assert_eq!(told(one, &options(Split::Fraction(1.5))).0, "held-out fraction 1.5 is not in [0, 1)");
    assert!(told(one, &options(Split::Fraction(f64::NAN))).0.contains("NaN"));
    let short = LoadOptions { max_length: 1, ..options(Split::None) };
    assert_eq!(told(one, &short).0, "`max_length` is 1, the least is 2");
    let heavy = SourceSpec { weight: f64::INFINITY, ..two.clone() };
    assert_eq!(
        told(&[heavy], &options(Split::None)).0,
        "source `a`: weight inf is not a number in (0, 1000]"
    );
    let text = SourceSpec { format: Format::Text, ..two.clone() };
    assert_eq!(told(&[text], &options(Split::None)).0, "format `text` needs a tokenizer");
    let masked = files.source("m", Format::Tokens, &[json!({"input_ids": [1, 2], "labels": [-100, -100]})]);
    let (message, hint) = told(&[masked], &options(Split::None));
    assert!(message.starts_with("nothing is trained in source `m`: 1 records, 1 without"), "{message}");
    assert!(hint.contains("train_on"));
    // The first faulty record is told, however many threads looked.
    let lines: Vec<Value> =
        (0..500).map(|i| if i < 100 { json!({"input_ids": [1, 2]}) } else { json!({}) }).collect();
    assert!(
        told(&[files.source("b", Format::Tokens, &lines)], &options(Split::None)).0.contains("line 101:")
    );

    let source =
        files.source("c", Format::Chat, &[json!({"messages": cases()["conversations"]["bad_order"]})]);
    let load = |tokenizer: Tokenizer| {
        Dataset::load(std::slice::from_ref(&source), Some(&tokenizer), &LoadOptions::default()).unwrap_err()
    };
    let told = load(tokenizer(Some("inst.jinja"))).to_string();
    assert!(
        told.ends_with(
            "line 1: the chat template refuses this conversation: roles must alternate \
                            user/assistant/user/assistant/..."
        ),
        "{told}"
    );
    assert!(matches!(load(tokenizer(None)), Error::NoTemplate { .. }));
    let source = files.source("t", Format::Text, &[json!({"text": "x"})]);
    let endless = TokenizerParts { eos: None, ..tokenizer(None).parts().clone() };
    let endless = Tokenizer::from_parts(endless).unwrap();
    let fault = Dataset::load(&[source], Some(&endless), &LoadOptions::default()).unwrap_err();
    assert!(matches!(fault, Error::NoEos { format: "text", .. }));
}

/// Two sources of numbered samples; ids tell the record.
pub(crate) fn mixed(weights: [f64; 2]) -> Arc<Dataset> {
    let files = Files::new();
    let mut sources = [numbered(&files, "a", 13), numbered(&files, "b", 7)];
    for (source, weight) in sources.iter_mut().zip(weights) {
        source.weight = weight;
    }
    Arc::new(Dataset::load(&sources, None, &options(Split::None)).unwrap())
}

#[test]
fn threads_change_nothing() {
    let files = Files::new();
    let tokenizer = tokenizer(Some("smollm.jinja"));
    let records: Vec<Value> =
        (0..50).map(|i| json!({"instruction": format!("q {i}"), "output": format!("a {}", i * 7)})).collect();
    let source = [files.source("a", Format::Instruction, &records)];
    let digest = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = LoadOptions { split: Split::Count(5), ..LoadOptions::default() };
        let dataset = pool.install(|| Dataset::load(&source, Some(&tokenizer), &options).unwrap());
        let config = StreamConfig {
            batch_size: 4,
            micro_batch: 2,
            packing: true,
            max_length: 128,
            shuffle: true,
            seed: 0,
        };
        (dataset.digest(), Stream::new(Arc::new(dataset), config).unwrap().order_digest().unwrap())
    };
    assert_eq!(digest(1), digest(4));
}
