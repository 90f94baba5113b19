use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Example, Format, Record, RecordFile};
use crate::error::{Place, Result};

const FORMATS: [Format; 5] =
    [Format::Chat, Format::Instruction, Format::Completion, Format::Text, Format::Tokens];

fn write(folder: &tempfile::TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs_err::write(&path, bytes).unwrap();
    path
}

/// The message of reading all of a file, its folder taken out.
fn fault(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, name, bytes);
    let read = |file: RecordFile| (0..file.len()).map(|at| file.record(at)).collect::<Result<Vec<_>>>();
    let fault = RecordFile::open(&path).and_then(read).unwrap_err();
    fault.to_string().replace(&format!("{}/", folder.path().display()), "")
}

fn parse(format: Format, record: Value) -> Result<Example, String> {
    let record = Record::new(Place::line(Path::new("a.jsonl"), 4), record).map_err(|e| e.to_string())?;
    format.parse(&record, 100).map_err(|e| e.to_string())
}

#[test]
fn three_kinds_of_files_hold_the_same_records() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("a.jsonl", "\u{feff}{\"text\": \"a\"}\r\n\n  \n{\"text\": \"b\\n\"}"),
        ("a.json", "[{\"text\": \"a\"}, {\"text\": \"b\\n\"}]"),
        ("b.json", "{\"version\": 1, \"data\": [{\"text\": \"a\"}, {\"text\": \"b\\n\"}]}"),
        ("a.CSV", "text,n\na,1\n\"b\n\",2\n"),
    ] {
        let file = RecordFile::open(&write(&folder, name, text)).unwrap();
        let texts: Vec<Value> =
            (0..file.len()).map(|at| file.record(at).unwrap().fields["text"].clone()).collect();
        assert_eq!(texts, ["a", "b\n"], "{name}");
    }
}

#[test]
fn a_text_file_is_one_record_and_packed_files_are_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let gzip = |bytes: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    };
    let play = "To be,\n\nor not to be\n";
    // Packed in two members, as `cat a.gz b.gz` makes them.
    let halves = [gzip(&play.as_bytes()[..5]), gzip(&play.as_bytes()[5..])].concat();
    for (name, bytes) in [("a.txt", play.as_bytes().to_vec()), ("a.txt.gz", halves)] {
        let file = RecordFile::open(&write(&folder, name, bytes)).unwrap();
        assert_eq!((file.len(), file.record(0).unwrap().fields["text"].as_str()), (1, Some(play)), "{name}");
    }
    // A cache calls its files by their hashes.
    let blob = write(&folder, "0123abcd", gzip(b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n"));
    assert_eq!(RecordFile::open_as(&blob, "x.jsonl.gz").unwrap().len(), 2);
    assert_eq!(fault("a.txt", " \n"), "`a.txt` holds no records");
    assert_eq!(fault("a.jsonl.gz", "{}"), "`a.jsonl.gz` cannot be unpacked as gzip");
    let cut = gzip(&[b'x'; 4000]);
    assert_eq!(fault("a.txt.gz", &cut[..cut.len() - 9]), "`a.txt.gz` cannot be unpacked as gzip");
    assert!(fault("a.bin.gz", "x").contains("a.bin.gz"));
}

#[test]
fn broken_files_are_told_with_their_place() {
    assert_eq!(
        fault("a.jsonl", "{\"text\": \"a\"}\n\n{\"text\": nope}\n"),
        "`a.jsonl` line 3 column 11: expected ident"
    );
    assert_eq!(fault("a.jsonl", "{\"a\": 1} {"), "`a.jsonl` line 1 column 10: trailing characters");
    assert_eq!(fault("a.jsonl", b"{}\n{\"\xff\"}".as_slice()), "`a.jsonl` line 2 column 3: not UTF-8");
    assert_eq!(fault("a.jsonl", "[1]"), "`a.jsonl` line 1: expected an object, got an array");
    assert_eq!(fault("a.jsonl", "\n\n"), "`a.jsonl` holds no records");
    assert_eq!(fault("a.json", "[{},\n {]"), "`a.json` line 2 column 3: key must be a string");
    assert_eq!(fault("a.json", "[{}, 1]"), "`a.json` record 2: expected an object, got a number");
    assert_eq!(
        fault("a.json", "{\"a\": [], \"b\": []}"),
        "`a.json` is an object with 2 array fields: `a`, `b`"
    );
    assert_eq!(fault("a.json", "{\"a\": 1}"), "`a.json` is an object with 0 array fields: none");
    assert_eq!(fault("a.json", "1"), "`a.json`: expected an array of objects, got a number");
    assert_eq!(fault("a.csv", "a,b\n1,2\n3\n"), "`a.csv` line 3: the header has 2 fields, this row has 1");
    assert_eq!(fault("a.csv", "a,b\n"), "`a.csv` holds no records");
    assert_eq!(fault("a.parquet", "a"), "cannot tell the kind of `a.parquet` from its name");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(fault("a.jsonl", deep).contains("recursion limit exceeded"));
}

#[test]
fn formats_read_their_fields() {
    let messages = |chat: Value| match parse(Format::Chat, chat) {
        Ok(Example::Chat(messages)) => serde_json::to_value(messages).unwrap(),
        other => panic!("{other:?}"),
    };
    let expected = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "q"},
                          {"role": "assistant", "content": "a"}]);
    assert_eq!(messages(json!({"messages": expected})), expected);
    let turns = json!([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]);
    assert_eq!(messages(json!({"conversations": turns, "system": "s"})), expected);
    let call = json!([{"role": "assistant", "content": null, "tool_calls": [{"name": "f"}]}]);
    assert_eq!(messages(json!({"messages": call})), call);

    let alpaca = json!({"instruction": "i", "input": null, "output": "o", "system": ""});
    let (instruction, output) = ("i".to_owned(), "o".to_owned());
    let expected = Example::Instruction { instruction, input: String::new(), output, system: None };
    assert_eq!(parse(Format::Instruction, alpaca), Ok(expected));
    let (prompt, completion) = ("p".to_owned(), "c".to_owned());
    let expected = Example::Completion { prompt, completion };
    assert_eq!(parse(Format::Completion, json!({"prompt": "p", "completion": "c"})), Ok(expected));
    let expected = Example::Tokens { input_ids: vec![1, 99], labels: vec![-100, 99] };
    assert_eq!(parse(Format::Tokens, json!({"input_ids": [1, 99], "labels": [-100, 99]})), Ok(expected));
    let expected = Example::Tokens { input_ids: vec![1], labels: vec![1] };
    assert_eq!(parse(Format::Tokens, json!({"input_ids": [1]})), Ok(expected));
}

#[test]
fn wrong_records_are_told_with_their_place() {
    let told = |format, record| parse(format, record).unwrap_err();
    for (format, record, message) in [
        (Format::Text, json!({"body": "x", "n": 1}), "format `text` needs `text`; fields here: `body`, `n`"),
        (
            Format::Chat,
            json!({"text": "x"}),
            "format `chat` needs `messages`, `conversations`; fields here: `text`",
        ),
        (Format::Text, json!({"text": 1}), "`text`: expected a string, got a number"),
        (Format::Chat, json!({"messages": []}), "`messages`: expected a list of messages, got an empty list"),
        (Format::Chat, json!({"messages": "[]"}), "`messages`: expected a list of messages, got a string"),
        (
            Format::Chat,
            json!({"messages": [{"role": "user"}]}),
            "`messages[0].content`: expected a string, got null",
        ),
        (
            Format::Chat,
            json!({"messages": [{"role": "bot", "content": ""}]}),
            "unknown role `bot` in message 1; known: `system`, `user`, `assistant`, `tool`",
        ),
        (
            Format::Chat,
            json!({"conversations": [{"from": "bing", "value": ""}]}),
            "unknown role `bing` in message 1; known: `human`, `user`, `gpt`, `assistant`, `system`",
        ),
        (Format::Tokens, json!({"input_ids": [1], "labels": []}), "1 `input_ids` but 0 `labels`"),
        (Format::Tokens, json!({"input_ids": [100]}), "`input_ids` holds 100, the vocabulary has 100 tokens"),
        (
            Format::Tokens,
            json!({"input_ids": [1], "labels": [-1]}),
            "`labels` holds -1, the vocabulary has 100 tokens",
        ),
        (
            Format::Tokens,
            json!({"input_ids": [1.5]}),
            "`input_ids`: expected a list of integers, got a number",
        ),
    ] {
        assert_eq!(told(format, record), format!("`a.jsonl` line 4: {message}"));
    }
}

/// Any JSON, with the keys that formats look for.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "messages",
        "conversations",
        "role",
        "content",
        "from",
        "value",
        "instruction",
        "input",
        "output",
        "prompt",
        "completion",
        "text",
        "input_ids",
        "labels",
        "system",
        "tool_calls",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["user", "assistant", "human", "gpt", ""]).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80_000))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..3usize) {
        let path = Path::new(["a.jsonl", "a.json", "a.csv"][kind]);
        if let Ok(file) = RecordFile::from_bytes(path, &bytes) {
            for at in 0..file.len() {
                for format in FORMATS {
                    let _ = file.record(at).and_then(|record| format.parse(&record, 100));
                }
            }
        }
    }

    #[test]
    fn any_lines_are_read_or_refused(lines in prop::collection::vec("[\\[\\]{}\":,a-z0-9\\\\ \r\u{e9}-]{0,30}", 0..8)) {
        let filled = lines.iter().filter(|line| !line.trim().is_empty()).count();
        match RecordFile::from_bytes(Path::new("a.jsonl"), lines.join("\n").as_bytes()) {
            Err(_) => prop_assert_eq!(filled, 0),
            Ok(file) => {
                prop_assert_eq!(file.len(), filled);
                for at in 0..file.len() {
                    let _ = file.record(at);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_json_is_a_record_or_refused(value in any_json(), vocab in 0usize..200) {
        for format in FORMATS {
            if let Ok(record) = Record::new(Place::record(Path::new("a.json"), 1), value.clone())
                && let Ok(Example::Tokens { input_ids, labels }) = format.parse(&record, vocab)
            {
                prop_assert_eq!(input_ids.len(), labels.len());
                prop_assert!(input_ids.iter().all(|&id| (id as usize) < vocab));
            }
        }
    }
}
