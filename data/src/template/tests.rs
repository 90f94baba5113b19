use std::path::Path;

use serde_json::{Value, json};

use super::{ChatTemplate, Date, Message, RenderError};
use crate::error::Place;
use crate::tokenizer::tests::{cases, fixture};

pub(crate) fn messages(value: &Value) -> Vec<Message> {
    value.as_array().unwrap().iter().map(|message| message.as_object().unwrap().clone()).collect()
}

fn compile(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, Some("<s>"), Some("<|im_end|>"), Date::default()).unwrap()
}

fn user(content: &str) -> Vec<Message> {
    messages(&json!([{"role": "user", "content": content}]))
}

#[test]
fn renders_as_transformers_does() {
    let cases = cases();
    for case in cases["chat"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let template = compile(&fs_err::read_to_string(fixture(&format!("{name}.jinja"))).unwrap());
        let conversation = messages(&cases["conversations"][case["conversation"].as_str().unwrap()]);
        let got = template.render(&conversation, case["add_generation_prompt"].as_bool().unwrap());
        match (case["text"].as_str(), case["raises"].as_str()) {
            (Some(text), _) => assert_eq!(got.as_deref(), Ok(text), "{case}"),
            (_, Some(words)) => assert_eq!(got, Err(RenderError::Raised(words.to_owned())), "{case}"),
            _ if !case["fails"].is_null() => assert!(matches!(got, Err(RenderError::Failed(_))), "{case}"),
            _ => panic!("a case is a text or an exception: {case}"),
        }
    }
}

#[test]
fn a_refusal_names_the_record() {
    let template = compile("{{ raise_exception('no ' ~ messages[0].role) }}");
    let fault = template.render(&user("x"), false).unwrap_err();
    let told = fault.at(&Place::line(Path::new("a.jsonl"), 7)).to_string();
    assert_eq!(told, "`a.jsonl` line 7: the chat template refuses this conversation: no user");
    let within = "{% macro m() %}{{ raise_exception('deep') }}{% endmacro %}{{ m() }}";
    assert_eq!(compile(within).render(&[], false), Err(RenderError::Raised("deep".to_owned())));
}

#[test]
fn loops_and_output_are_bounded() {
    for source in [
        "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}",
        "{% for i in range(9000) %}{{ 'x' * 9000 }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'etc/passwd' %}",
    ] {
        let fault = compile(source).render(&user("x"), false).unwrap_err();
        assert!(matches!(fault, RenderError::Failed(_)), "{source}");
    }
}

#[test]
fn json_is_written_as_python_writes_it() {
    // json.dumps({"b": [1, 2.5, None, True], "a": "<\u00e9>"}, ensure_ascii=False) and its options.
    let render = |options: &str| {
        compile(&format!("{{{{ messages[0] | tojson({options}) }}}}"))
            .render(&messages(&json!([{"b": [1, 2.5, null, true], "a": "<\u{e9}>"}])), false)
            .unwrap()
    };
    assert_eq!(render(""), "{\"b\": [1, 2.5, null, true], \"a\": \"<\u{e9}>\"}");
    assert_eq!(render("ensure_ascii=true"), r#"{"b": [1, 2.5, null, true], "a": "<\u00e9>"}"#);
    assert_eq!(
        render("sort_keys=true, separators=(',', ':')"),
        "{\"a\":\"<\u{e9}>\",\"b\":[1,2.5,null,true]}"
    );
}

#[test]
fn generation_blocks_are_followed() {
    let template = compile(
        "{% for m in messages %}\n  {%- generation -%}\n {{ m.content }} {%- endgeneration %}\nx{% endfor %}",
    );
    let (text, spans) = template.render_marked(&user("abc")).unwrap();
    assert_eq!((text.as_str(), spans.len(), &spans[0]), ("abcx", 1, &(0..3)));
    assert!(compile("{{ messages }}").render_marked(&user("abc")).is_none());
}
