//! Data that cannot be trained on, and data that can but not whole: the first ends with 2, the second is
//! counted and told.

use insta::assert_snapshot;

use crate::stage::{Stage, samples};

const CHAT: &str =
    r#"{"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c d"}]}"#;

#[test]
fn broken_line() {
    let stage = Stage::new();
    let mut lines = samples(2);
    lines.push_str("{\"input_ids\": [3, 4], \"labels\": [3, 4\n");
    stage.write("data.jsonl", lines);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `[HERE]/data.jsonl` line 3 column 37: EOF while parsing a list

    hint: mend this line, or remove it
    "#);
}

#[test]
fn line_that_is_not_utf8() {
    let stage = Stage::new();
    stage.write("data.jsonl", [samples(1).as_bytes(), b"{\"input_ids\": \"\xff\"}\n"].concat());
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `[HERE]/data.jsonl` line 2 column 16: not UTF-8

    hint: convert the file to UTF-8
    "#);
}

#[test]
fn no_records() {
    let stage = Stage::new();
    stage.write("data.jsonl", "\n\n");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `[HERE]/data.jsonl` holds no records

    hint: point the source at a file with records
    "#);
}

#[test]
fn unknown_kind_of_file() {
    let stage = Stage::new();
    stage.write("data.parquet", "PAR1");
    stage.edit("recipe.toml", "data.jsonl", "data.parquet");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: cannot tell the kind of `data.parquet` from its name

    hint: use a file that ends in `.jsonl`, `.json`, `.csv` or `.txt`, or in one of these and `.gz`
    "#);
}

#[test]
fn fields_of_another_format() {
    let stage = Stage::with_text("chat", &[r#"{"instruction": "Say a", "output": "a"}"#]);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `[HERE]/data.jsonl` line 1: format `chat` needs `messages`, `conversations`; fields here: `instruction`, `output`

    hint: set `format` to what the fields here are of, or map the fields with `fields`
    "#);
}

#[test]
fn unknown_role() {
    let other = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]}"#;
    let stage = Stage::with_text("chat", &[CHAT, other]);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `[HERE]/data.jsonl` line 2: unknown role `robot` in message 2; known: `system`, `user`, `assistant`, `tool`

    hint: rename the role to one of `system`, `user`, `assistant`, `tool`
    "#);
}

#[test]
fn template_that_raises() {
    let stage = Stage::with_text("chat", &[CHAT]);
    let template = "{{ raise_exception('Roles must alternate user/assistant') }}";
    stage.write("model/chat_template.jinja", template);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `[HERE]/data.jsonl` line 1: the chat template refuses this conversation: Roles must alternate user/assistant

    hint: change the record, or leave it out
    "#);
}

#[test]
fn template_that_never_ends() {
    let stage = Stage::with_text("chat", &[CHAT]);
    let template = "{% for a in range(99999) %}{% for b in range(99999) %}.{% endfor %}{% endfor %}";
    stage.write("model/chat_template.jinja", template);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `[HERE]/data.jsonl` line 1: the chat template failed: engine ran out of fuel (in chat:1)

    hint: mend the template (`chat_template.jinja`, or `chat_template` in `tokenizer_config.json`), or use one of the formats `instruction`, `completion`, `text`
    "#);
}

#[test]
fn template_that_is_not_one() {
    let stage = Stage::with_text("chat", &[CHAT]);
    stage.write("model/chat_template.jinja", "{% for message in messages %}");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: could not use `model.source`
      Caused by: could not use the tokenizer of `[HERE]/model`
      Caused by: the chat template is not valid: syntax error: unexpected end of input, expected end of block (in chat:1)

    hint: mend the template (`chat_template.jinja`, or `chat_template` in `tokenizer_config.json`), or use one of the formats `instruction`, `completion`, `text`
    "#);
}

#[test]
fn text_without_tokenizer() {
    let stage = Stage::new();
    stage.write("data.jsonl", "{\"text\": \"a\"}\n");
    stage.edit("recipe.toml", "\"tokens\"", "\"text\"");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: format `text` needs a tokenizer

    hint: use format `tokens`, or a model with a `tokenizer.json`
    "#);
}

#[test]
fn nothing_trained() {
    let stage = Stage::new();
    stage.write("data.jsonl", "{\"input_ids\": [3, 4, 5], \"labels\": [-100, -100, -100]}\n");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: nothing is trained in source `data.jsonl`: 1 records, 1 without a trained token, 0 too long, 0 truncated before their first target

    hint: check the roles in the file and `train_on`; `seedcorn inspect` shows what is trained
    "#);
}

#[test]
fn no_turn_of_the_assistant() {
    let stage = Stage::with_text("chat", &[r#"{"messages": [{"role": "user", "content": "a b"}]}"#]);
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: nothing is trained in source `data.jsonl`: 1 records, 1 without a trained token, 0 too long, 0 truncated before their first target

    hint: check the roles in the file and `train_on`; `seedcorn inspect` shows what is trained
    "#);
}

#[test]
fn ids_outside_the_vocabulary() {
    let stage = Stage::new();
    stage.write("data.jsonl", "{\"input_ids\": [3, 256], \"labels\": [3, 256]}\n");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `[HERE]/data.jsonl` line 1: `input_ids` holds 256, the vocabulary has 256 tokens

    hint: tokenize the data with this model's own tokenizer
    "#);
}

#[test]
fn labels_of_another_length() {
    let stage = Stage::new();
    stage.write("data.jsonl", "{\"input_ids\": [3, 4, 5], \"labels\": [3, 4]}\n");
    assert_snapshot!(stage.train(""), @r#"
    exit 2
    ----- stderr
    error: `[HERE]/data.jsonl` line 1: 3 `input_ids` but 2 `labels`

    hint: mend this record, or remove it
    "#);
}

#[test]
fn long_samples_are_cut_and_counted() {
    let stage = Stage::new();
    stage.write("data.jsonl", samples(5) + "{\"input_ids\": [3, 4], \"labels\": [3, 4]}\n");
    assert_snapshot!(stage.train("--dry-run --set data.max_length=8"), @r#"
    exit 0
    ----- stdout
    model: model (llama, 0.1 M parameters, 2 layers)
    data: 6 samples, 42 tokens, 36 trained; 0 samples held out
    adapter: 14 layers, 0.00 M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 6 sequences an epoch; 4 steps
    ----- stderr
    warning: `data.jsonl`: 5 samples were cut to `data.max_length` (8)
    "#);
}

#[test]
fn long_samples_are_left_out_and_counted() {
    let stage = Stage::new();
    stage.write("data.jsonl", samples(5) + "{\"input_ids\": [3, 4], \"labels\": [3, 4]}\n");
    assert_snapshot!(stage.train("--dry-run --set data.max_length=8 --set data.on_long=drop"), @r#"
    exit 0
    ----- stdout
    model: model (llama, 0.1 M parameters, 2 layers)
    data: 1 samples, 2 tokens, 1 trained; 0 samples held out
    adapter: 14 layers, 0.00 M trained values
    2 sequences x 2 micro-batches = 4 sequences a step; 1 sequences an epoch; 4 steps
    ----- stderr
    warning: `data.jsonl`: 5 samples longer than `data.max_length` (8) were left out
    "#);
}

#[test]
fn all_samples_too_long() {
    assert_snapshot!(Stage::new().train("--set data.max_length=8 --set data.on_long=drop"), @r#"
    exit 2
    ----- stderr
    error: nothing is trained in source `data.jsonl`: 16 records, 0 without a trained token, 16 too long, 0 truncated before their first target

    hint: raise `max_length`
    "#);
}

#[test]
fn held_out_all() {
    assert_snapshot!(Stage::new().train("--set data.eval_count=16"), @r#"
    exit 2
    ----- stderr
    error: source `data.jsonl`: the held-out split takes 16 of 16 records

    hint: hold out fewer records
    "#);
}
