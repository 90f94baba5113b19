use html5gum::{DefaultEmitter, Token, Tokenizer};
use seedcorn_data::Statistics;

use super::*;
use crate::log::{Eval, Update};

/// What would run, load or restyle if a text reached the page as it is.
const HOSTILE: &str = "</pre></title><script>alert(1)</script><img src=x onerror=alert(1)>\"' style='x' {{ 7*7 }} \
                       <!-- ]]> &amp; \u{0}\u{1b}[31m \u{202e}txt";

fn lock(name: &str, finished: bool) -> Lock {
    let results = "[results]\nsteps = 3\ntrained_tokens = 30\nadapter_sha256 = 'ab'\n\
                   mesh = { data = 1 }\nfiles = [{ name = 'adapter/a.safetensors', bytes = 9, sha256 = 'abc' }]\n";
    let quoted = serde_json::to_string(name).expect("JSON");
    let text = format!(
        "version = 2\nrecipe_digest = 'd1'\n[tool]\nversion = '0.1.0'\nprofile = 'release'\n\
         [device]\nclass = 'cpu'\nisa = 'avx2'\n[recipe]\noutput = {quoted}\n\
         [model]\nsource = {quoted}\ntokenizer_sha256 = 't1'\n\
         files = [{{ name = {quoted}, bytes = 1234567, sha256 = 'f1' }}]\n\
         [data]\ntrain = [{{ source = {quoted}, records = 3, files = [] }}]\n\
         [samples]\ntrain = 3\neval = 1\ntruncated = 0\ndropped = 0\ntokens = 40\ntrained_tokens = 30\n\
         sequences = 3\ntotal_steps = 3\norder = {{ train_sha256 = 'o1' }}\n{}",
        if finished { results } else { "" }
    );
    toml::from_str(&text.replace("\\u0000", "\\u0001")).expect("a lock")
}

fn step(step: u64) -> Update {
    Update {
        step,
        loss: 3.0 / step as f64,
        grad_norm: 0.25,
        lr: 1e-3,
        trained_tokens: 10 * step,
        tokens_per_second: 99.5,
        seconds: Some(0.5),
        peak_memory_bytes: Some(123_000_000),
        device_memory_bytes: None,
        adapter_sha256: None,
    }
}

fn rows(steps: u64) -> Rows {
    let eval = |step, loss| Eval { step, loss, tokens: 7, sources: Vec::new() };
    Rows { steps: (1..=steps).map(step).collect(), evals: vec![eval(0, 2.5), eval(steps, 1.25)], unread: 0 }
}

fn facts(text: &str) -> Facts {
    let answer = |step, answer: &str| Answer {
        step,
        question: text.to_owned(),
        expected: text.to_owned(),
        answer: answer.to_owned(),
    };
    Facts {
        starts: vec![Start { step: 0, threads: 2 }, Start { step: 2, threads: 1 }],
        model: Model {
            family: text.to_owned(),
            layers: 2,
            parameters: 5_000_000,
            adapted: 14,
            trained: 1000,
        },
        train: vec![Statistics {
            name: text.to_owned(),
            records: 9,
            samples: 3,
            tokens: 40,
            trained_tokens: 30,
            truncated: 1,
            dropped_long: 2,
            ..Statistics::default()
        }],
        lengths: Histogram { width: 5, counts: vec![1, 0, 2] },
        memory: Memory { weights: 50_000_000, adapter: 16_000, activations: 1_000_000, ..Memory::default() },
        answers: vec![answer(0, "first answer"), answer(3, text)],
        ..Facts::default()
    }
}

fn page(lock: &Lock, rows: &Rows, facts: Option<&Facts>) -> String {
    Page::new(lock, rows, facts).render().expect("rendered")
}

/// An element of a page, with the text in it.
#[derive(Debug, Default)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
}

impl Element {
    fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Elements that have no end.
const VOID: [&str; 1] = ["meta"];

/// Reads a page as browsers do and returns its elements in the order in which they begin. A page that a browser
/// would have to mend, or whose elements do not close in order, fails the test.
fn parse(html: &str) -> Vec<Element> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let (mut elements, mut open) = (Vec::<Element>::new(), Vec::<usize>::new());
    for token in Tokenizer::new_with_emitter(html, emitter) {
        match token.expect("reads from memory") {
            Token::StartTag(tag) => {
                let attributes = tag.attributes.iter().map(|(key, value)| (text(key), text(value)));
                let element =
                    Element { name: text(&tag.name), attributes: attributes.collect(), text: String::new() };
                if !tag.self_closing && !VOID.contains(&element.name.as_str()) {
                    open.push(elements.len());
                }
                elements.push(element);
            }
            Token::EndTag(tag) => {
                let last = open.pop().map(|at| elements[at].name.clone());
                assert_eq!(last, Some(text(&tag.name)), "closes in order");
            }
            Token::String(string) => open.iter().for_each(|at| elements[*at].text.push_str(&text(&string))),
            Token::Comment(comment) => panic!("{comment:?}"),
            Token::Doctype(doctype) => assert!(elements.is_empty() && !doctype.force_quirks),
            Token::Error(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(open, [0; 0], "all closed");
    elements
}

/// The texts of all elements of a name, their spaces made one.
fn texts(html: &str, name: &str) -> Vec<String> {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    parse(html).iter().filter(|one| one.name == name).map(|one| words(&one.text)).collect()
}

#[test]
fn texts_of_others_stay_texts() {
    let html = page(&lock(HOSTILE, true), &rows(3), Some(&facts(HOSTILE)));
    let elements = parse(&html);
    let count = |name: &str| elements.iter().filter(|one| one.name == name).count();
    assert_eq!((count("script"), count("img")), (1, 0));
    for Element { name, attributes, .. } in &elements {
        for (key, value) in attributes {
            assert!(!key.starts_with("on") && !["style", "src", "href"].contains(&&**key), "{name} {key}");
            assert!(!value.contains("alert"), "{name} {key}={value}");
        }
    }
    let answers =
        elements.iter().filter(|one| one.name == "pre" && one.text.contains("<script>alert(1)</script>"));
    assert!(answers.count() >= 3, "the question, the expected answer, the model's answer");
    assert!(html.contains("{{ 7*7 }}") && !html.contains('\u{202e}') && !html.contains('\u{1b}'));
    assert!(!html.contains("<script>alert") && !html.contains("onerror=alert(1)>"));
}

#[test]
fn the_page_holds_its_parts_and_names_each_once() {
    let html = page(&lock("runs/x", true), &rows(3), Some(&facts("text")));
    assert!(html.starts_with("<!DOCTYPE html>"), "{}", &html[..80]);
    let parts = [
        "Curves",
        "Evaluation",
        "Answers",
        "Data",
        "Memory",
        "Recipe",
        "Inputs and outputs",
        "Rerun and verify",
    ];
    assert_eq!(texts(&html, "h2"), parts);
    let elements = parse(&html);
    let values = |key: &'static str| elements.iter().filter_map(move |one| one.attribute(key));
    let named: Vec<_> = values("aria-labelledby").chain(values("aria-describedby")).collect();
    let mut ids: Vec<_> = values("id").collect();
    assert!(named.iter().all(|name| ids.contains(name)) && named.len() > 12, "{named:?} {ids:?}");
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    let descriptions = texts(&html, "desc");
    assert_eq!(descriptions.len(), 6);
    assert!(descriptions[0].starts_with("training (nats a token), 3 values: 3.0000 at step 1 first"));
    assert!(descriptions[0].contains("held-out (nats a token), 2 values: 2.5000 at step 0 first"));
    assert!(texts(&html, "p").iter().any(|text| text.contains("continued after step 2")));
}

#[test]
fn numbers_are_those_of_the_rows() {
    let html = page(&lock("runs/x", true), &rows(3), Some(&facts("text")));
    let cells = texts(&html, "td");
    for number in [
        "3.0000",
        "1.5000",
        "1.0000",
        "0.2500",
        "1.000e-3",
        "123 MB",
        "75.0 %",
        "1,234,567",
        "abc",
        "50.0 MB",
    ] {
        assert!(cells.iter().any(|cell| cell == number), "{number} in {cells:?}");
    }
    let figures = texts(&html, "strong");
    assert_eq!(figures, ["2.5000 \u{2192} 1.2500", "3.0000 \u{2192} 1.0000", "3 of 3", "1.5 s", "123 MB"]);
    assert!(texts(&html, "code").iter().any(|code| code == "seedcorn verify runs/x"));
}

#[test]
fn the_policy_names_the_style_and_the_script_of_the_page() {
    use base64::Engine;
    use sha2::Digest;
    let html = page(&lock("x", true), &rows(1), None);
    let hash = |text: &str| {
        let digest = sha2::Sha256::digest(text);
        format!("'sha256-{}'", base64::prelude::BASE64_STANDARD.encode(digest))
    };
    let elements = parse(&html);
    let is_policy = |one: &&Element| one.attribute("http-equiv") == Some("Content-Security-Policy");
    let policy = elements.iter().find(is_policy).and_then(|one| one.attribute("content")).expect("a policy");
    let own = elements.iter().filter(|one| ["style", "script"].contains(&one.name.as_str()));
    let hashes: Vec<_> = own.map(|one| hash(&one.text)).collect();
    let [style, script] = hashes.as_slice() else { panic!("{hashes:?}") };
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    assert!(
        policy.contains(&format!("style-src {style};")) && policy.contains(&format!("script-src {script};"))
    );
}

#[test]
fn an_unfinished_run_and_an_empty_one_have_a_page() {
    let unfinished = page(&lock("runs/x", false), &rows(2), Some(&facts("text")));
    assert!(texts(&unfinished, "p").contains(&"not finished: 2 of 3 steps are logged".to_owned()));
    assert!(texts(&unfinished, "code").contains(&"seedcorn train RECIPE --resume".to_owned()));
    let empty = page(&lock("runs/x", false), &Rows { unread: 2, ..Rows::default() }, None);
    let paragraphs = texts(&empty, "p");
    for part in
        ["No step is logged yet", "report.json is not in this folder", "2 lines of metrics.jsonl are neither"]
    {
        assert!(paragraphs.iter().any(|text| text.contains(part)), "{part}");
    }
}

#[test]
fn a_page_is_a_function_of_its_inputs_and_stays_small() {
    let (lock, facts) = (lock("runs/x", true), facts("text"));
    let rows = rows(100_000);
    let html = page(&lock, &rows, Some(&facts));
    assert_eq!(page(&lock, &rows, Some(&facts)), html);
    assert!(html.len() < 400_000, "{}", html.len());
    assert!(html.contains("faint: lowest and highest value of each stretch; strong: its mean"));
}

#[test]
fn a_folder_without_a_run_is_refused() {
    let folder = tempfile::tempdir().expect("temp folder");
    let error = write(folder.path()).expect_err("no run");
    assert!(error.to_string().ends_with("is not the folder of a run: it has no `run.lock`"), "{error}");
    assert_eq!(crate::error::exit(&error), crate::error::Exit::Usage);
}
