//! The model card: Hugging Face front matter, then what the run's lock says, in words.
//!
//! Source of the front matter's keys: <https://huggingface.co/docs/hub/model-cards> and `huggingface_hub`'s
//! `ModelCardData`.

use std::fmt::Write;

use seedcorn_adapters::folder::MARK;
use seedcorn_data::source::HubKind;

use super::export::{Export, Kind};
use super::hub_ids;
use super::licence::Licence;
use super::origin::Named;
use super::sections;
use super::statement::Statement;
use super::yaml::Yaml;

/// Returns the text of `README.md`.
pub(super) fn text(export: &Export<'_>) -> String {
    let mut text = format!("---\n{}---\n<!-- {MARK} -->\n\n# {}\n", front_matter(export), export.name());
    for section in sections::all(export) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{section}");
    }
    text
}

fn front_matter(export: &Export<'_>) -> String {
    let mut yaml = Yaml::default();
    let (library, relation) = match export.kind {
        Kind::Adapter => ("peft", "adapter"),
        Kind::Merged => ("transformers", "finetune"),
    };
    if let Some((HubKind::Model, repo)) = export.base_named().hub {
        yaml.text("base_model", &repo);
        yaml.text("base_model_relation", relation);
    }
    license(&mut yaml, export.base.license.as_ref());
    yaml.list("datasets", &datasets(export));
    yaml.text("library_name", library);
    yaml.text("pipeline_tag", "text-generation");
    yaml.list("tags", &tags(export));
    model_index(&mut yaml, export);
    yaml.into_text()
}

/// Writes the licence of the base in the hub's words.
fn license(yaml: &mut Yaml, stated: Option<&Statement>) {
    let Some(stated) = stated else { return yaml.text("license", "unknown") };
    let word = match stated.licence() {
        Licence::Spdx(id) => hub_ids::of_spdx(&id),
        Licence::Terms(terms) => Some(terms.id),
        Licence::Hub(id) => Some(id),
    };
    yaml.text("license", word.unwrap_or("other"));
    if word.is_none() {
        let own = stated.id.strip_prefix("LicenseRef-").unwrap_or(&stated.id);
        yaml.text("license_name", &own.to_lowercase().replace([' ', '(', ')'], "-"));
    }
    if let Some(link) = &stated.link {
        yaml.text("license_link", link);
    }
}

/// Lists the data sets that have a name on the hub.
fn datasets(export: &Export<'_>) -> Vec<String> {
    let Some(run) = export.run else { return Vec::new() };
    let mut names: Vec<String> = Vec::new();
    for one in &run.data.train {
        if let Some((HubKind::Dataset, repo)) = Named::of(&one.source, None).hub
            && !names.contains(&repo)
        {
            names.push(repo);
        }
    }
    names
}

fn tags(export: &Export<'_>) -> Vec<String> {
    let quantized = export.run.and_then(|run| run.recipe.get("model")?.get("quantize")?.as_str());
    let mut tags = vec!["lora"];
    if quantized.is_some_and(|format| format != "none") {
        tags.push("qlora");
    }
    tags.push("seedcorn");
    tags.into_iter().map(str::to_owned).collect()
}

fn model_index(yaml: &mut Yaml, export: &Export<'_>) {
    let Some(run) = export.run else { return };
    let Some(results) = &run.results else { return };
    let metrics = [
        ("held-out loss before training", results.eval_loss_before),
        ("held-out loss", results.eval_loss_after),
    ];
    if results.eval_loss_after.is_none() {
        return;
    }
    let held_out = if run.data.eval.is_empty() { &run.data.train } else { &run.data.eval };
    let named: Vec<Named> = held_out.iter().map(|one| Named::of(&one.source, None)).collect();
    let names: Vec<&str> = named.iter().map(|one| one.short.as_str()).collect();
    let kind = named.iter().find_map(|one| one.hub.as_ref()).map_or("other", |(_, repo)| repo.as_str());
    yaml.open("model-index");
    yaml.text("- name", &export.name());
    yaml.open("  results");
    yaml.open("  - task");
    yaml.text("      type", "text-generation");
    yaml.open("    dataset");
    yaml.text("      name", &format!("{}, held out", names.join(", ")));
    yaml.text("      type", kind);
    yaml.open("    metrics");
    for (name, value) in metrics {
        let Some(value) = value else { continue };
        yaml.text("    - type", "loss");
        yaml.text("      name", name);
        yaml.number("      value", value);
    }
}
