//! The body of a model card, a section at a time.

use std::path::Path;

use super::export::{Export, Kind};
use super::licence::Licence;
use super::origin::{Named, plain};
use super::statement::Statement;
use crate::evidence::{File, Lock, Source};
use crate::recipe::keep_what_decides;

/// Returns the sections in their order, each with its title and without an empty line at its end.
pub(super) fn all(export: &Export<'_>) -> Vec<String> {
    let mut sections = vec![about(export), base(export)];
    if let Some(run) = export.run {
        sections.extend([data(run), recipe(run)]);
        sections.extend(results(run));
    }
    sections.extend([loading(export), again(export), licences(export)]);
    sections
}

fn about(export: &Export<'_>) -> String {
    let base = export.base_named().shown;
    let Some(run) = export.run else {
        return format!(
            "`{base}` with a LoRA adapter merged into its weights by Seedcorn {}. Nothing is recorded here of what \
             the adapter was trained on.\n",
            env!("CARGO_PKG_VERSION")
        );
    };
    let what = match export.kind {
        Kind::Adapter => format!("A LoRA adapter for `{base}`"),
        Kind::Merged => format!("`{base}` with a LoRA adapter merged into its weights"),
    };
    let steps = run.results.as_ref().map_or(run.samples.total_steps, |results| results.steps);
    format!(
        "{what}, trained by Seedcorn {} in {steps} steps on {} samples. Everything below is taken from the run's \
         `run.lock`.\n",
        plain(&run.tool.version),
        run.samples.train
    )
}

fn base(export: &Export<'_>) -> String {
    let named = export.base_named();
    let mut rows = vec![("source", format!("`{}`{}", named.shown, local(&named)))];
    rows.extend(
        export.base.revision.as_deref().map(|revision| ("revision", format!("`{}`", plain(revision)))),
    );
    rows.push(("licence", shown(export.base.license.as_ref())));
    rows.extend(export.base.files.iter().map(|file| ("file", file_row(file))));
    let rows = rows.iter().map(|(key, value)| format!("| {key} | {value} |\n")).collect::<Vec<_>>().concat();
    format!("## Base model\n\n| | |\n| --- | --- |\n{rows}")
}

fn data(run: &Lock) -> String {
    let row = |one: &Source, use_: &str| {
        let named = Named::of(&one.source, one.revision.as_deref());
        let hashes: Vec<String> = one.files.iter().map(|file| format!("`{}`", plain(&file.sha256))).collect();
        format!(
            "| `{}`{} | {use_} | {} | {} | {} |\n",
            named.shown,
            local(&named),
            one.records,
            shown(one.license.as_ref()),
            hashes.join(", ")
        )
    };
    let train = run.data.train.iter().map(|one| row(one, "training"));
    let rows: String = train.chain(run.data.eval.iter().map(|one| row(one, "held out"))).collect();
    let samples = &run.samples;
    format!(
        "## Data\n\n| source | use | records | licence | sha256 |\n| --- | --- | --- | --- | --- |\n{rows}\nSamples: {} \
         trained ({} tokens, {} of them with a loss), {} held out, {} cut and {} left out for their length.\n",
        samples.train,
        samples.tokens,
        samples.trained_tokens,
        samples.eval,
        samples.truncated,
        samples.dropped
    )
}

/// Writes the recipe so that it can be saved and run: what decides the result, and nothing of this run's machine.
fn recipe(run: &Lock) -> String {
    let mut table = run.recipe.clone();
    keep_what_decides(&mut table);
    table.insert("output".to_owned(), "run".into());
    let is_whole = shorten_paths(&mut table);
    let text = toml::to_string(&table).unwrap_or_default().replace("```", "` ` `");
    let note = if is_whole {
        format!("Its digest, as `run.lock` has it, is `{}`.", plain(&run.recipe_digest))
    } else {
        "Local sources are named by their last part only: put your own paths in their place.".to_owned()
    };
    format!("## Recipe\n\n```toml\n{text}```\n\n{note}\n")
}

/// Replaces local paths by their last part; `false` if there were any.
fn shorten_paths(table: &mut toml::Table) -> bool {
    let mut is_whole = true;
    for (key, value) in table.iter_mut() {
        match value {
            toml::Value::String(text) if key == "source" || key == "from" => {
                let named = Named::of(text, None);
                is_whole &= !named.is_local;
                *text = named.shown;
            }
            toml::Value::Table(inner) => is_whole &= shorten_paths(inner),
            toml::Value::Array(items) => {
                for inner in items.iter_mut().filter_map(toml::Value::as_table_mut) {
                    is_whole &= shorten_paths(inner);
                }
            }
            _ => {}
        }
    }
    is_whole
}

fn results(run: &Lock) -> Option<String> {
    let results = run.results.as_ref()?;
    let number = |value: Option<f64>| value.map(|value| format!("{value:.6}"));
    let rows = [
        ("held-out loss before training", number(results.eval_loss_before)),
        ("held-out loss after training", number(results.eval_loss_after)),
        ("training loss of the last step", number(results.final_loss)),
        ("optimizer steps", Some(results.steps.to_string())),
        ("trained tokens", Some(results.trained_tokens.to_string())),
    ];
    let rows = rows.into_iter().filter_map(|(key, value)| Some(format!("| {key} | {} |\n", value?)));
    let rows: String = rows.collect();
    Some(format!(
        "## Results\n\n| | |\n| --- | --- |\n{rows}\nLosses are means over trained tokens, in nats. The run was computed \
         on `{}`, instruction tier `{}`.\n",
        plain(&run.device.class),
        plain(&run.device.isa)
    ))
}

fn loading(export: &Export<'_>) -> String {
    let code = match export.kind {
        Kind::Merged => "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
                         # This folder.\n\
                         model = AutoModelForCausalLM.from_pretrained(\".\")\n\
                         tokenizer = AutoTokenizer.from_pretrained(\".\")\n"
            .to_owned(),
        Kind::Adapter => format!(
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n{}\
             # This folder.\n\
             model = PeftModel.from_pretrained(base, \".\")\n",
            base_code(export)
        ),
    };
    format!("## How to load it\n\n```python\n{code}```\n")
}

/// Returns the lines of Python that load the base.
fn base_code(export: &Export<'_>) -> String {
    let quoted = |text: &str| serde_json::to_string(text).expect("a string always prints");
    let named = export.base_named();
    let gguf = export
        .base
        .files
        .iter()
        .find(|file| Path::new(&file.name).extension().is_some_and(|ext| ext == "gguf"));
    let gguf = gguf.map_or(String::new(), |file| format!(", gguf_file={}", quoted(&plain(&file.name))));
    let (comment, place) = match &named.hub {
        Some((_, repo)) => {
            let revision = export
                .base
                .revision
                .as_deref()
                .map_or(String::new(), |revision| format!(", revision={}", quoted(&plain(revision))));
            (String::new(), format!("{}{revision}", quoted(repo)))
        }
        None => ("# The folder that holds the base model named above.\n".to_owned(), quoted("BASE")),
    };
    format!("{comment}base = AutoModelForCausalLM.from_pretrained({place}{gguf})\n")
}

fn again(export: &Export<'_>) -> String {
    let bom = "`bom.json` lists base, data and files with their hashes (CycloneDX 1.6).";
    if export.run.is_none() {
        return format!("## How to check it\n\n{bom}\n");
    }
    format!(
        "## How to run it again and check it\n\nSave the recipe above as `recipe.toml`, then `seedcorn train \
         recipe.toml` trains it again; on a machine of the same device class the adapter has the same bits. \
         `seedcorn verify` holds a run, or an export with its `run.lock`, against hashes, and trains the first steps \
         again. {bom}\n"
    )
}

fn licences(export: &Export<'_>) -> String {
    let named = export.base_named();
    let mut parts = vec![sentence("The base model", &named.shown, export.base.license.as_ref())];
    for one in export.run.iter().flat_map(|run| run.data.train.iter()) {
        let named = Named::of(&one.source, None);
        parts.push(sentence("The data", &named.shown, one.license.as_ref()));
    }
    parts.dedup();
    format!(
        "## Licences\n\n{}\n\nThis is what the sources state about themselves; it was not examined further.\n",
        parts.join("\n\n")
    )
}

fn sentence(what: &str, shown: &str, stated: Option<&Statement>) -> String {
    let Some(stated) = stated else {
        return format!("{what} `{shown}` comes without a licence that could be found: ask its publisher.");
    };
    let link = stated.link.as_ref().map_or(String::new(), |link| format!("<{link}>; "));
    if let Licence::Terms(terms) = stated.licence() {
        return format!(
            "{what} `{shown}` is under the {} ({link}{}): community terms, not an open-source licence. They ask {}. \
             The text at the link decides.",
            terms.name, stated.from, terms.asks
        );
    }
    let name = stated.name.as_ref().map_or(String::new(), |name| format!(", `{}`", plain(name)));
    format!("{what} `{shown}` is under `{}`{name} ({link}{}).", plain(&stated.id), stated.from)
}

fn shown(stated: Option<&Statement>) -> String {
    stated.map_or_else(|| "unknown".to_owned(), |stated| format!("`{}`", plain(&stated.id)))
}

fn local(named: &Named) -> &'static str {
    if named.is_local { " (local)" } else { "" }
}

fn file_row(file: &File) -> String {
    format!("`{}`, {} bytes, sha256 `{}`", plain(&file.name), file.bytes, plain(&file.sha256))
}
