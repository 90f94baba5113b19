use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Rendered, TrainOn, conversation, labels};
use crate::batch::IGNORE;
use crate::error::{Error, Place, Result};
use crate::template::tests::messages;
use crate::tokenizer::tests::{cases, tokenizer};

fn render(template: &str, chat: &Value, train_on: TrainOn) -> Result<Rendered> {
    let tokenizer = tokenizer(Some(template));
    let place = Place::line(Path::new("a.jsonl"), 1);
    conversation(tokenizer.template().unwrap(), &messages(chat), train_on, &place)
}

/// What is trained of a conversation of `cases.json`.
fn trained(template: &str, name: &str, train_on: TrainOn) -> Vec<String> {
    let rendered = render(template, &cases()["conversations"][name], train_on).unwrap();
    rendered.spans.iter().map(|span| rendered.text[span.clone()].to_owned()).collect()
}

#[test]
fn turns_end_with_their_token_and_begin_after_their_header() {
    use TrainOn::{Assistant, Last};
    for template in
        ["smollm.jinja", "chatml.jinja", "plain_roles.jinja", "generation.jinja", "thinking.jinja"]
    {
        assert_eq!(trained(template, "single", Assistant), ["Hello!<|im_end|>"], "{template}");
        let turns = ["Hello!<|im_end|>", "Yes.\n\nNo.<|im_end|>"];
        assert_eq!(trained(template, "multi", Assistant), turns, "{template}");
        assert_eq!(trained(template, "multi", Last), turns[1..], "{template}");
        assert_eq!(trained(template, "open", Assistant), ["b<|im_end|>"], "{template}");
    }
    // Whitespace of the content is the template's to keep or to strip.
    assert_eq!(trained("smollm.jinja", "system", Assistant), ["  Hello there.\n\n<|im_end|>"]);
    assert_eq!(trained("headers.jinja", "system", Assistant), ["Hello there.<|eot_id|>"]);
    assert_eq!(trained("headers.jinja", "multi", Assistant), ["Hello!<|eot_id|>", "Yes.\n\nNo.<|eot_id|>"]);
    assert_eq!(trained("inst.jinja", "single", Assistant), [" Hello!</s>"]);
}

#[test]
fn templates_that_move_text_are_followed_by_sentinels() {
    // The system message stands in the last user turn, so no conversation is a prefix of a longer one.
    let turns = trained("inst.jinja", "multi", TrainOn::Assistant);
    assert_eq!(turns, [" Hello!</s>", " Yes.\n\nNo.</s>"]);
    // Thoughts of earlier turns are taken out, those of the last stay.
    let turns = trained("thinking.jinja", "thoughts", TrainOn::Assistant);
    assert_eq!(turns, ["Yes<|im_end|>", "<think>\ntwo\n</think>\n\nNo<|im_end|>"]);
}

#[test]
fn empty_turns_and_tool_calls_have_their_place() {
    let turn = |template: &str, answer: Value| {
        let chat = json!([{"role": "user", "content": "q"}, answer]);
        let rendered = render(template, &chat, TrainOn::Assistant).unwrap();
        assert_eq!(rendered.spans.len(), 1);
        rendered.text[rendered.spans[0].clone()].to_owned()
    };
    // A content that also stands in the header is not looked for there.
    let short = json!({"role": "assistant", "content": "a"});
    assert_eq!(turn("plain_roles.jinja", short), "a<|im_end|>");
    let empty = json!({"role": "assistant", "content": ""});
    assert_eq!(turn("smollm.jinja", empty.clone()), "<|im_end|>");
    assert_eq!(turn("plain_roles.jinja", empty.clone()), "<|im_end|>");
    assert_eq!(turn("inst.jinja", empty), " </s>");
    // The header template writes nothing for a call, but its end is the model's to write.
    let call = json!({"role": "assistant", "content": null, "tool_calls": []});
    assert_eq!(turn("headers.jinja", call), "<|eot_id|>");
}

#[test]
fn all_trains_all() {
    let rendered = render("smollm.jinja", &cases()["conversations"]["multi"], TrainOn::All).unwrap();
    assert_eq!((rendered.spans.len(), &rendered.spans[0]), (1, &(0..rendered.text.len())));
}

#[test]
fn generation_masks_equal_those_of_transformers() {
    let cases = cases();
    let tokenizer = tokenizer(Some("generation.jinja"));
    let mut compared = 0;
    for case in cases["chat"].as_array().unwrap().iter().filter(|case| case["mask"].is_array()) {
        let chat = &cases["conversations"][case["conversation"].as_str().unwrap()];
        let rendered = render("generation.jinja", chat, TrainOn::Assistant).unwrap();
        let encoded = tokenizer.encode_offsets(&rendered.text).unwrap();
        let mask: Vec<u64> =
            labels(&encoded, &rendered.spans).iter().map(|&label| u64::from(label != IGNORE)).collect();
        assert_eq!(json!(encoded.ids), case["ids"], "{case}");
        assert_eq!(json!(mask), case["mask"], "{case}");
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[test]
fn a_turn_without_a_trace_is_an_error() {
    let template = crate::template::ChatTemplate::new(
        "{{ messages | length }}{% for m in messages %}{{ m.content | length }}{% endfor %}",
        None,
        None,
        crate::template::Date::default(),
    )
    .unwrap();
    let chat = messages(&json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]));
    let place = Place::line(Path::new("a.jsonl"), 3);
    let fault = conversation(&template, &chat, TrainOn::Assistant, &place).unwrap_err();
    assert!(matches!(fault, Error::SpanNotFound { turn: 2, .. }), "{fault}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every byte of a span is in a trained token, and no token outside of all spans is trained.
    #[test]
    fn labels_cover_spans(text in "\\PC{0,40}", cut in prop::collection::vec(any::<prop::sample::Index>(), 2)) {
        let tokenizer = tokenizer(None);
        let mut borders: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        borders.push(text.len());
        let (a, b) = (borders[cut[0].index(borders.len())], borders[cut[1].index(borders.len())]);
        let span = a.min(b)..a.max(b);
        let encoded = tokenizer.encode_offsets(&text).unwrap();
        let made = labels(&encoded, std::slice::from_ref(&span));
        prop_assert_eq!(made.len(), encoded.ids.len());
        for ((&label, &(start, end)), &id) in made.iter().zip(&encoded.offsets).zip(&encoded.ids) {
            let inside = start < span.end && span.start < end;
            prop_assert_eq!(label, if inside { id as i32 } else { IGNORE });
        }
    }

    /// Targets of a chat are the same in number as the tokens of its answers and their ends.
    #[test]
    fn targets_are_the_answers(answers in prop::collection::vec("[a-z]{1,8}( [a-z]{1,8}){0,4}", 1..4)) {
        let tokenizer = tokenizer(Some("smollm.jinja"));
        let chat: Vec<Value> = answers
            .iter()
            .flat_map(|answer| [json!({"role": "user", "content": "q"}), json!({"role": "assistant", "content": answer})])
            .collect();
        let rendered = render("smollm.jinja", &Value::from(chat), TrainOn::Assistant).unwrap();
        let encoded = tokenizer.encode_offsets(&rendered.text).unwrap();
        let made = labels(&encoded, &rendered.spans);
        let expected: usize =
            answers.iter().map(|answer| tokenizer.encode(answer, false).unwrap().len() + 1).sum();
        prop_assert_eq!(made.iter().filter(|&&label| label != IGNORE).count(), expected);
    }
}
