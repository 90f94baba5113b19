use std::path::PathBuf;

use serde_json::Value;

use super::{Tokenizer, TokenizerParts};
use crate::error::Error;

/// Made by `scripts/reference/make_tokenizer_fixture.py`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/data")).join(name)
}

pub(crate) fn cases() -> Value {
    serde_json::from_str(&fs_err::read_to_string(fixture("cases.json")).unwrap()).unwrap()
}

/// The fixture's tokenizer with one of the fixture's templates.
pub(crate) fn tokenizer(template: Option<&str>) -> Tokenizer {
    Tokenizer::from_parts(TokenizerParts {
        tokenizer_json: fs_err::read_to_string(fixture("tokenizer.json")).unwrap(),
        bos: Some("<s>".to_owned()),
        eos: Some("<|im_end|>".to_owned()),
        chat_template: template.map(|name| fs_err::read_to_string(fixture(name)).unwrap()),
        ..TokenizerParts::default()
    })
    .unwrap()
}

#[test]
fn ids_equal_those_of_transformers_and_decode_back() {
    let tokenizer = tokenizer(None);
    for case in cases()["encode"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        let mut stream = tokenizer.stream(false);
        let mut streamed: String = ids.iter().map(|&id| stream.step(id).unwrap()).collect();
        streamed.push_str(&stream.finish().unwrap());
        assert_eq!(streamed, text);
    }
}

#[test]
fn a_character_comes_out_whole() {
    let tokenizer = tokenizer(None);
    let ids = tokenizer.encode("\u{65e5}", false).unwrap();
    assert_eq!(ids.len(), 3);
    let mut stream = tokenizer.stream(false);
    let texts: Vec<String> = ids.iter().map(|&id| stream.step(id).unwrap()).collect();
    assert_eq!(texts, ["", "", "\u{65e5}"]);
    let mut stream = tokenizer.stream(false);
    stream.step(ids[0]).unwrap();
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

#[test]
fn a_folder_tells_its_special_tokens() {
    let tokenizer = Tokenizer::from_folder(&fixture("")).unwrap();
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(3), Some(2)));
    // The fixture's post-processor writes `<s>`, so the folder's tokenizer does too; once.
    assert!(tokenizer.parts().add_bos && !tokenizer.parts().add_eos);
    let ids = tokenizer.encode("Hi", true).unwrap();
    assert_eq!(ids[0], 3);
    assert_eq!(ids[1..], tokenizer.encode("Hi", false).unwrap());
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(ids[1]));
    assert_eq!(tokenizer.vocab_size(), 421);
    assert_eq!(tokenizer.token(2).as_deref(), Some("<|im_end|>"));
}

#[test]
fn the_template_file_goes_before_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::copy(fixture("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config =
        r#"{"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    fs_err::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let read = || Tokenizer::from_folder(folder.path()).unwrap().parts().chat_template.clone();
    assert_eq!(read().as_deref(), Some("d"));
    fs_err::write(folder.path().join("chat_template.jinja"), "f").unwrap();
    assert_eq!(read().as_deref(), Some("f"));
}

#[test]
fn faults_are_told() {
    let fault = Tokenizer::from_parts(TokenizerParts::default()).unwrap_err();
    assert!(matches!(&fault, Error::BadTokenizer { what, .. } if what == "`tokenizer.json`"), "{fault}");
    let mut parts = tokenizer(None).parts().clone();
    parts.eos = Some("<nope>".to_owned());
    let fault = Tokenizer::from_parts(parts.clone()).unwrap_err();
    assert_eq!(fault.to_string(), "eos token `<nope>` is not in the vocabulary");
    parts.eos = None;
    parts.chat_template = Some("{% for %}".to_owned());
    assert!(matches!(Tokenizer::from_parts(parts).unwrap_err(), Error::BadTemplate { .. }));
}
