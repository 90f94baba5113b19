//! Messages, defaults and the fixpoint: a resolved recipe written out resolves to itself.

mod messages;

use super::*;
use proptest::prelude::*;

const MINIMAL: &str = r#"
version = 1
output = "out"
[model]
source = "hf:org/name@main"
[[data.train]]
source = "train.jsonl"
format = "chat"
[train]
batch_size = 8
steps = 20
"#;

const FULL: &str = r#"
version = 1
output = "out"

[model]
source = "model.gguf"
quantize = "nf4"
double_quant = false
compute = "bf16"
sha256 = { "model.gguf" = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855" }
license = "apache-2.0 or mit"

[adapter]
kind = "lora"
rank = 8
alpha = 12
dropout = 0.05
rslora = true
targets = ["q_proj", "v_proj"]
exclude = ["layers.0"]
rank_pattern = { "layers.1.q_proj" = 4 }
alpha_pattern = { "layers.1.q_proj" = 8 }

[data]
max_length = 512
on_long = "drop"
packing = false
shuffle = false
train_on = "last"
[[data.train]]
source = "a.jsonl"
format = "instruction"
weight = 2
train_on = "all"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
license = "llama3.1"
fields = { instruction = "question" }
[[data.train]]
source = "b.jsonl"
format = "chat"
[[data.eval]]
source = "c.jsonl"
format = "text"

[train]
batch_size = 8
micro_batch = 4
epochs = 2
seed = 3
max_grad_norm = 0
activation = "keep"

[optimizer]
kind = "adamw"
lr = 1e-3
betas = [0.9, 0.95]
eps = 1e-6
weight_decay = 0.01

[schedule]
kind = "linear"
warmup_steps = 5
min_ratio = 0.1

[eval]
every_steps = 10
max_samples = 7

[checkpoint]
every_steps = 5
keep = 3

[export]
merged = "bf16"

[log]
sample = false
tensorboard = false

[policy]
allow = ["mit", "Apache-2.0", "llama3.1"]
deny = ["LicenseRef-secret"]
unknown = "warn"
[parallel]
data = 2
tensor = 3
timeout_seconds = 60
"#;

fn resolve_with(text: &str, overrides: &[&str]) -> Result<Recipe, RecipeError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    parse(text, Path::new("r/recipe.toml"), &overrides).and_then(Recipe::resolve)
}

fn resolve(text: &str) -> Result<Recipe, RecipeError> {
    resolve_with(text, &[])
}

/// The message and the hint of a recipe that must be refused.
fn refused(text: &str, overrides: &[&str]) -> (String, String) {
    let error = resolve_with(text, overrides).expect_err("must be refused");
    (error.to_string(), error.hint().unwrap_or_default())
}

fn with(base: &str, from: &str, to: &str) -> String {
    assert!(base.contains(from), "`{from}` is not in the recipe");
    base.replacen(from, to, 1)
}

#[test]
fn fills_in_every_default() {
    let recipe = resolve(MINIMAL).expect("valid");
    let expected = r#"version = 1
output = "r/out"

[model]
source = "hf:org/name@main"
quantize = "none"
compute = "f32"

[adapter]
kind = "lora"
dropout = 0.0
rank = 16
alpha = 32.0
rslora = false
targets = "all-linear"

[data]
max_length = 1024
on_long = "truncate"
packing = true
shuffle = true

[[data.train]]
source = "train.jsonl"
format = "chat"
weight = 1.0
train_on = "assistant"

[train]
batch_size = 8
micro_batch = 1
steps = 20
seed = 0
max_grad_norm = 1.0
activation = "recompute"

[optimizer]
kind = "adamw"
lr = 0.0002
betas = [0.9, 0.999]
eps = 0.00000001
weight_decay = 0.0

[schedule]
kind = "cosine"
warmup_steps = 0
min_ratio = 0.0

[checkpoint]
every_steps = 100
keep = 2

[export]
merged = "none"

[log]
sample = true
tensorboard = true

[parallel]
data = "auto"
timeout_seconds = 30
"#;
    assert_eq!(recipe.to_toml(), expected);
    assert_eq!(recipe.data.train[0].source.resolved(), "r/train.jsonl");
}

#[test]
fn a_written_recipe_resolves_to_itself() {
    for text in [
        MINIMAL,
        FULL,
        &with_budget(),
        &with(FULL, "quantize = \"nf4\"\ndouble_quant = false", "quantize = \"int8\""),
    ] {
        let recipe = resolve(text).expect("valid");
        let mut again = resolve(&recipe.to_toml()).expect("what we write is a recipe");
        assert_eq!(again.digest(), recipe.digest());
        again.output.clone_from(&recipe.output);
        assert_eq!(again, recipe);
    }
}

/// Every field of every table is set in `FULL` (or excludes one that is), so every field is accepted.
#[test]
fn every_key_is_accepted_and_carried() {
    let typed: toml::Table = toml::from_str(FULL).expect("TOML");
    let variants = [
        ("train.steps", with(FULL, "epochs = 2", "steps = 20")),
        ("train.memory_budget", with_budget()),
        ("data.eval_fraction", with(&without_eval(), "packing", "eval_fraction = 0.1\npacking")),
        ("data.eval_count", with(&without_eval(), "packing", "eval_count = 4\npacking")),
        ("adapter.from", from_recipe()),
        (
            "data.eval.fields",
            with(FULL, "format = \"text\"", "format = \"text\"\nfields = { text = \"body\" }"),
        ),
        ("data.eval.train_on", with(FULL, "format = \"text\"", "format = \"text\"\ntrain_on = \"all\"")),
        (
            "data.eval.sha256",
            with(FULL, "format = \"text\"", &format!("format = \"text\"\nsha256 = \"{}\"", "0".repeat(64))),
        ),
        ("device", with(FULL, "output = \"out\"", "output = \"out\"\ndevice = \"wgpu:1\"")),
        ("parallel.shard_base", with(FULL, "tensor = 3", "tensor = 3\nshard_base = true")),
        ("parallel.reduction", with(FULL, "tensor = 3", "tensor = 3\nreduction = \"fast\"")),
        ("data.eval.license", with(FULL, "format = \"text\"", "format = \"text\"\nlicense = \"mit\"")),
    ];
    for key in known_keys() {
        // Refused by meaning rather than by name; `refuses_what_would_be_ignored` has it.
        if key == "data.eval.weight" {
            continue;
        }
        let variant = variants.iter().find(|(name, _)| *name == key).map(|(_, text)| text.as_str());
        let recipe = resolve(variant.unwrap_or(FULL)).unwrap_or_else(|error| panic!("{key}: {error}"));
        // Resolved into each source; `train_on_follows_the_format` has it.
        assert!(
            key == "data.train_on" || has(&recipe.table(), &key),
            "`{key}` is lost in the resolved recipe"
        );
        assert!(variant.is_some() || has(&typed, &key), "`{key}` is in no test recipe");
    }
}

#[test]
fn licences_and_the_policy_are_no_part_of_the_digest() {
    let plain = resolve(MINIMAL).expect("valid");
    let stated = with(MINIMAL, "format = \"chat\"", "format = \"chat\"\nlicense = \"mit\"");
    let policy = "[policy]\ndeny = [\"gpl-3.0\"]\n";
    let recipe = resolve_with(&(stated + policy), &["model.license=cc0-1.0"]).expect("valid");
    assert_eq!(recipe.digest(), plain.digest());
    assert_eq!(recipe.model.license.as_deref(), Some("CC0-1.0"));
    let found = recipe.policy.expect("there is one");
    assert_eq!((found.deny, found.unknown), (vec!["GPL-3.0-only".to_owned()], Unknown::Warn));
    let allowing = resolve(&format!("{MINIMAL}[policy]\nallow = [\"mit\"]\n")).expect("valid");
    assert_eq!(allowing.policy.expect("there is one").unknown, Unknown::Refuse);
}

fn with_budget() -> String {
    with(FULL, "activation = \"keep\"", "activation = \"auto\"\nmemory_budget = \"1.5 GB\"")
}

fn without_eval() -> String {
    with(FULL, "[[data.eval]]\nsource = \"c.jsonl\"\nformat = \"text\"\n", "")
}

fn from_recipe() -> String {
    let (head, rest) = FULL.split_once("[adapter]").expect("there");
    let (_, tail) = rest.split_once("[data]").expect("there");
    format!("{head}[adapter]\nfrom = \"old\"\n[data]{tail}")
}

fn has(table: &toml::Table, key: &str) -> bool {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (table.get(first), rest) {
        (Some(toml::Value::Table(inner)), Some(rest)) => has(inner, rest),
        (Some(toml::Value::Array(items)), Some(rest)) => {
            items.iter().any(|item| item.as_table().is_some_and(|inner| has(inner, rest)))
        }
        (found, None) => found.is_some(),
        _ => false,
    }
}

#[test]
fn digest_ignores_where_and_what_is_shown_only() {
    let base = resolve(FULL).expect("valid").digest();
    let same = [
        "output=elsewhere",
        "log.sample=true",
        "checkpoint.every_steps=1",
        "checkpoint.keep=9",
        "train.activation=recompute",
        "train.activation=auto",
        "parallel.data=1",
        "parallel.data=auto",
        "parallel.tensor=2",
        "parallel.timeout_seconds=5",
    ];
    for text in same {
        assert_eq!(resolve_with(FULL, &[text]).expect("valid").digest(), base, "{text}");
    }
    let budget = resolve_with(FULL, &["train.activation=auto", "train.memory_budget=1 GiB"]).expect("valid");
    assert_eq!((budget.digest(), budget.train.memory_budget), (base.clone(), Some(1 << 30)));
    let other =
        ["train.seed=4", "adapter.rank=9", "optimizer.lr=2e-3", "eval.max_samples=6", "data.packing=true"];
    for text in other {
        assert_ne!(resolve_with(FULL, &[text]).expect("valid").digest(), base, "{text}");
    }
}

#[test]
fn train_on_follows_the_format() {
    let of = |format: &str| {
        let text = with(MINIMAL, "format = \"chat\"", &format!("format = \"{format}\""));
        resolve(&text).expect("valid").data.train[0].train_on
    };
    assert_eq!(of("instruction"), Some(TrainOn::Assistant));
    assert_eq!(of("completion"), Some(TrainOn::Assistant));
    assert_eq!(of("text"), Some(TrainOn::All));
    assert_eq!(of("tokens"), None);
    let recipe = resolve(FULL).expect("valid");
    assert_eq!(recipe.data.train[0].train_on, Some(TrainOn::All));
    assert_eq!(recipe.data.train[1].train_on, Some(TrainOn::Last));
    assert_eq!(recipe.data.eval[0].train_on, Some(TrainOn::All));
}

#[test]
fn a_missing_or_huge_file_is_an_error() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("recipe.toml");
    let error = load(&path, &[]).expect_err("missing");
    assert!(error.to_string().starts_with("could not read the recipe `"));
    fs_err::write(&path, vec![b'#'; (1 << 20) + 1]).expect("write");
    assert!(matches!(load(&path, &[]), Err(RecipeError::TooLarge { bytes: 1_048_577, .. })));
    fs_err::write(&path, MINIMAL).expect("write");
    assert_eq!(load(&path, &[]).expect("valid").output, folder.path().join("out"));
}

#[test]
fn every_key_is_in_the_reference_page() {
    let page = include_str!("../../../../docs/recipe.md");
    for key in known_keys() {
        // The held-out tables share the rows of the training tables.
        let key = key.replace("data.eval.", "data.train.");
        assert!(page.contains(&format!("`{key}`")), "`{key}` is not in docs/recipe.md");
    }
    for line in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let key = line.split('`').next().unwrap_or_default();
        assert!(known_keys().iter().any(|known| known == key), "docs/recipe.md has the unknown key `{key}`");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}", key in "[a-z_.0-9]{0,30}", value in "\\PC{0,20}") {
        let _ = resolve(&text);
        let _ = resolve_with(FULL, &[&format!("{key}={value}")]);
    }

    #[test]
    fn no_line_of_a_recipe_panics(at in 0usize..FULL.len(), insert in "[\\[\\]{}=\"'.a-z0-9\\n-]{0,6}") {
        let mut text = FULL.to_owned();
        text.insert_str(at, &insert);
        let _ = resolve(&text);
    }
}
