//! A whole card and a whole bill of materials, from locks that are made here.

use serde_json::{Value, json};

use super::export::{Export, Kind};
use super::{Origin, Statement, bom, card};
use crate::evidence::{DataFiles, Device, File, Lock, ModelFiles, Order, Results, Samples, Source};
use crate::recipe::{Recipe, parse};

fn file(name: &str, bytes: u64) -> File {
    File { name: name.to_owned(), bytes, sha256: seedcorn_data::source::hash_text(name) }
}

fn stated(id: &str, from: Origin) -> Option<Statement> {
    Statement::read(id, None, None, from)
}

fn model(source: &str, license: Option<Statement>) -> ModelFiles {
    ModelFiles {
        source: source.to_owned(),
        revision: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        tokenizer_sha256: "t".to_owned(),
        chat_template_sha256: None,
        files: vec![file("config.json", 700), file("model.safetensors", 2000)],
        adapter_files: Vec::new(),
        license,
    }
}

fn run(base: &str, data: &str, license: Option<Statement>) -> Lock {
    let text = format!(
        "version = 1\noutput = '/home/me/out'\n[model]\nsource = '{base}'\nquantize = 'nf4'\n[data]\neval_count = 2\n\
         [[data.train]]\nsource = '{data}'\nformat = 'chat'\n[train]\nbatch_size = 4\nsteps = 20\n"
    );
    let typed = parse(&text, std::path::Path::new("r/recipe.toml"), &[]).expect("TOML");
    let recipe = Recipe::resolve(typed).expect("a recipe");
    let source = Source {
        source: data.to_owned(),
        revision: Some("1.2".to_owned()),
        records: 503,
        files: vec![file("train.jsonl", 900)],
        license: stated("cc-by-4.0", Origin::Wheel),
    };
    let samples = Samples {
        train: 501,
        eval: 2,
        truncated: 1,
        dropped: 0,
        tokens: 9000,
        trained_tokens: 4000,
        sequences: 501,
        total_steps: 20,
        order: Order { train_sha256: "abc".to_owned(), eval_sha256: None },
    };
    let device = Device { class: "cpu".to_owned(), isa: "avx2".to_owned() };
    let data = DataFiles { train: vec![source], eval: Vec::new() };
    let mut lock = Lock::new(&recipe, device, model(base, license), data, samples);
    // The snapshots do not change with the version.
    lock.tool.version = "1.2.3".to_owned();
    lock.results = Some(Results {
        steps: 20,
        trained_tokens: 4400,
        final_loss: Some(1.25),
        eval_loss_before: Some(2.125),
        eval_loss_after: Some(1.5),
        adapter_sha256: "a".to_owned(),
        early: Vec::new(),
        mesh: crate::evidence::MeshResult { data: 1, tensor: 1 },
        files: Vec::new(),
    });
    lock
}

fn config() -> Value {
    json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
}

fn with_export<T>(kind: Kind, lock: &Lock, then: impl FnOnce(&Export<'_>) -> T) -> T {
    let files = [file("adapter_config.json", 500), file("adapter_model.safetensors", 9000)];
    let adapter = if kind == Kind::Merged { &files[..] } else { &[] };
    then(&Export { kind, base: &lock.model, config: &config(), run: Some(lock), adapter, files: &files })
}

#[test]
fn card_of_an_adapter() {
    let lock = run(
        "hf:meta-llama/Llama-3.1-8B@main",
        "hf:datasets/org/set@main/a.jsonl",
        stated("llama3.1", Origin::Card),
    );
    insta::assert_snapshot!("card", with_export(Kind::Adapter, &lock, card::text));
}

#[test]
fn bom_of_an_adapter() {
    let lock =
        run("hf:org/base@main", "pypi:some-data==1.2/some_data/a.jsonl", stated("mit or isc", Origin::Card));
    insta::assert_snapshot!("bom", with_export(Kind::Adapter, &lock, bom::text));
}

#[test]
fn no_path_of_the_machine_is_told() {
    let lock = run("/home/me/models/base", "../secret/train.jsonl", None);
    for kind in [Kind::Adapter, Kind::Merged] {
        let texts = with_export(kind, &lock, |export| [card::text(export), bom::text(export)]);
        for text in &texts {
            assert!(!text.contains("/home/me") && !text.contains("secret"), "{text}");
            assert!(text.contains("train.jsonl"), "{text}");
        }
        assert!(texts[0].contains("license: \"unknown\"\n"), "{}", texts[0]);
        assert!(!texts[0].contains("base_model:"), "a local folder is no model of the hub: {}", texts[0]);
        assert!(texts[0].contains("comes without a licence that could be found"), "{}", texts[0]);
    }
}

#[test]
fn the_saved_recipe_has_the_digest_of_the_lock() {
    let lock = run("hf:org/base@main", "pypi:some-data==1.2/some_data/a.jsonl", None);
    let text = with_export(Kind::Adapter, &lock, card::text);
    let (_, rest) = text.split_once("```toml\n").expect("a recipe");
    let (recipe, rest) = rest.split_once("```").expect("an end");
    let typed =
        parse(recipe, std::path::Path::new("recipe.toml"), &[]).expect("the recipe of the card parses");
    assert_eq!(Recipe::resolve(typed).expect("valid").digest(), lock.recipe_digest);
    assert!(rest.contains(&lock.recipe_digest));
}

#[test]
fn the_serial_number_is_made_from_the_content() {
    let serial = |base: &str| {
        let lock = run(base, "a.jsonl", None);
        let bom: Value = serde_json::from_str(&with_export(Kind::Merged, &lock, bom::text)).expect("JSON");
        bom["serialNumber"].as_str().expect("a text").to_owned()
    };
    let first = serial("hf:org/base@main");
    assert_eq!(first, serial("hf:org/base@main"));
    assert_ne!(first, serial("hf:org/other@main"));
    let form =
        regex::Regex::new("^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$");
    assert!(form.expect("a pattern").is_match(&first), "{first}");
}

#[test]
fn names_begin_as_terms_ask() {
    let name = |base: &str, id: &str| {
        let lock = run(base, "a.jsonl", stated(id, Origin::Card));
        let text = with_export(Kind::Merged, &lock, card::text);
        let title = text.lines().find_map(|line| line.strip_prefix("# "));
        title.expect("a title").to_owned()
    };
    assert_eq!(name("hf:a/Llama-3.1-8B@main", "llama3.1"), "Llama-3.1-8B-merged");
    assert_eq!(name("hf:a/Meta-Llama-3-8B@main", "llama3"), "Llama-3-Meta-Llama-3-8B-merged");
    assert_eq!(name("hf:a/mine@main", "llama3.2"), "Llama-mine-merged");
    assert_eq!(name("hf:a/mine@main", "gemma"), "mine-merged");
}

#[test]
fn hostile_names_stay_in_their_place() {
    let base = "hf:org/base@main";
    let mut lock = run(
        base,
        "a.jsonl",
        Statement::read("other", Some("x`\n---\nlicense: mit".to_owned()), None, Origin::Card),
    );
    lock.model.files[0].name = "a`|</script>\n# bad".to_owned();
    let text = with_export(Kind::Adapter, &lock, card::text);
    let (front, body) = text["---\n".len()..].split_once("---\n").expect("front matter");
    assert!(
        !front.contains("license: mit") && !body.contains("\n# bad") && !body.contains("</script"),
        "{text}"
    );
}
