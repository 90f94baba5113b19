//! The bill of materials: CycloneDX 1.6 as JSON.
//!
//! Source: <https://cyclonedx.org/docs/1.6/json/>. Written with `serde_json`: the crate `cyclonedx-bom` 0.8 ends at
//! version 1.5 of the format.

use seedcorn_adapters::folder::MARK;
use seedcorn_data::source::hash_text;
use serde_json::{Map, Value, json};

use super::export::{Export, Kind};
use super::licence::Licence;
use super::origin::Named;
use super::statement::Statement;
use crate::evidence::{File, Lock, Source};

const SUBJECT: &str = "model";
const BASE: &str = "base-model";
const ADAPTER: &str = "adapter";
const TOOL: &str = "seedcorn";

/// Returns the text of `bom.json`.
///
/// There is no time in it, and its serial number is made from its content: the same export has the same bytes.
pub(super) fn text(export: &Export<'_>) -> String {
    let mut bom = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": "",
        "version": 1,
        "metadata": {
            "tools": {"components": [tool(export)]},
            "component": subject(export),
            "properties": [property("note", MARK)],
        },
        "components": components(export),
        "dependencies": dependencies(export),
    });
    bom["serialNumber"] = serial_number(&bom.to_string()).into();
    serde_json::to_string_pretty(&bom).expect("a JSON value always prints") + "\n"
}

/// Makes a UUID of version 8 (RFC 9562) of the content's sha256.
fn serial_number(content: &str) -> String {
    let hex = hash_text(content);
    // The variant's two high bits are 10.
    let variant = ["8", "9", "a", "b"][hex.as_bytes()[16] as usize % 4];
    format!(
        "urn:uuid:{}-{}-8{}-{variant}{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}

fn tool(export: &Export<'_>) -> Value {
    let version = export.run.map_or(env!("CARGO_PKG_VERSION"), |run| run.tool.version.as_str());
    json!({"type": "application", "bom-ref": TOOL, "name": "seedcorn", "version": version})
}

/// Describes what was exported.
fn subject(export: &Export<'_>) -> Value {
    let mut one = component(SUBJECT, "machine-learning-model", &export.name(), export.base.license.as_ref());
    one.insert("description".to_owned(), description(export).into());
    one.insert("components".to_owned(), files(SUBJECT, export.files));
    one.insert("modelCard".to_owned(), model_card(export));
    if let Some(run) = export.run {
        let mut properties = vec![property("recipe-digest", &run.recipe_digest)];
        properties.push(property("device", &format!("{} {}", run.device.class, run.device.isa)));
        properties.push(property("order-sha256", &run.samples.order.train_sha256));
        one.insert("properties".to_owned(), properties.into());
    }
    one.into()
}

fn description(export: &Export<'_>) -> String {
    let base = export.base_named().shown;
    match export.kind {
        Kind::Adapter => format!("LoRA adapter for {base}"),
        Kind::Merged => format!("{base} with a LoRA adapter merged into its weights"),
    }
}

fn model_card(export: &Export<'_>) -> Value {
    let text = |key: &str| export.config.get(key).and_then(Value::as_str).map(str::to_owned);
    let architecture = export.config.get("architectures").and_then(|list| list.get(0)?.as_str());
    let mut parameters = Map::new();
    if export.run.is_some() {
        parameters.insert("approach".to_owned(), json!({"type": "supervised"}));
    }
    parameters.insert("task".to_owned(), "text-generation".into());
    if let Some(family) = text("model_type") {
        parameters.insert("architectureFamily".to_owned(), family.into());
    }
    if let Some(architecture) = architecture {
        parameters.insert("modelArchitecture".to_owned(), architecture.into());
    }
    if let Some(run) = export.run {
        let refs: Vec<Value> =
            (1..=run.data.train.len()).map(|at| json!({"ref": data_ref("train", at)})).collect();
        parameters.insert("datasets".to_owned(), refs.into());
    }
    for key in ["inputs", "outputs"] {
        parameters.insert(key.to_owned(), json!([{"format": "text"}]));
    }
    let mut card = Map::from_iter([("modelParameters".to_owned(), parameters.into())]);
    let metrics = export.run.map(metrics).unwrap_or_default();
    if !metrics.is_empty() {
        card.insert("quantitativeAnalysis".to_owned(), json!({"performanceMetrics": metrics}));
    }
    card.into()
}

fn metrics(run: &Lock) -> Vec<Value> {
    let Some(results) = &run.results else { return Vec::new() };
    let all = [
        ("held-out loss before training", results.eval_loss_before),
        ("held-out loss", results.eval_loss_after),
        ("training loss of the last step", results.final_loss),
    ];
    let one =
        |(kind, value): (&str, Option<f64>)| Some(json!({"type": kind, "value": format!("{:.6}", value?)}));
    all.into_iter().filter_map(one).collect()
}

fn components(export: &Export<'_>) -> Vec<Value> {
    let mut all = vec![base(export)];
    if !export.adapter.is_empty() {
        let mut one = component(ADAPTER, "machine-learning-model", "adapter", None);
        one.insert("description".to_owned(), "LoRA adapter that was merged".into());
        one.insert("components".to_owned(), files(ADAPTER, export.adapter));
        all.push(one.into());
    }
    if let Some(run) = export.run {
        let numbered = |list: &[Source], use_: &str| -> Vec<Value> {
            list.iter().enumerate().map(|(at, one)| data(one, &data_ref(use_, at + 1), use_)).collect()
        };
        all.extend(numbered(&run.data.train, "train"));
        all.extend(numbered(&run.data.eval, "eval"));
    }
    all
}

fn base(export: &Export<'_>) -> Value {
    let named = export.base_named();
    let mut one = component(BASE, "machine-learning-model", &named.short, export.base.license.as_ref());
    place(&mut one, &named, export.base.revision.as_deref());
    contents(&mut one, BASE, &export.base.files);
    one.into()
}

fn data(source: &Source, reference: &str, use_: &str) -> Value {
    let named = Named::of(&source.source, source.revision.as_deref());
    let mut one = component(reference, "data", &named.short, source.license.as_ref());
    place(&mut one, &named, source.revision.as_deref());
    contents(&mut one, reference, &source.files);
    one.insert("data".to_owned(), json!([{"type": "dataset", "name": named.shown}]));
    let properties = [property("use", use_), property("records", &source.records.to_string())];
    one.insert("properties".to_owned(), properties.to_vec().into());
    one.into()
}

fn data_ref(use_: &str, number: usize) -> String {
    format!("data-{use_}-{number}")
}

/// Starts a component with what all of them have.
fn component(reference: &str, kind: &str, name: &str, stated: Option<&Statement>) -> Map<String, Value> {
    let mut one = Map::new();
    one.insert("type".to_owned(), kind.into());
    one.insert("bom-ref".to_owned(), reference.into());
    one.insert("name".to_owned(), name.into());
    if let Some(stated) = stated {
        one.insert("licenses".to_owned(), json!([license(stated)]));
    }
    one
}

/// Says where a component comes from.
fn place(one: &mut Map<String, Value>, named: &Named, revision: Option<&str>) {
    if let Some(revision) = revision {
        one.insert("version".to_owned(), revision.into());
    }
    if let Some(purl) = &named.purl {
        one.insert("purl".to_owned(), purl.as_str().into());
    }
    if let Some(page) = &named.page {
        one.insert("externalReferences".to_owned(), json!([{"type": "distribution", "url": page}]));
    }
}

/// Adds files and their hashes; a single file's hash is the component's own.
fn contents(one: &mut Map<String, Value>, reference: &str, list: &[File]) {
    if let [file] = list {
        one.insert("hashes".to_owned(), json!([hash(file)]));
    }
    one.insert("components".to_owned(), files(reference, list));
}

fn files(reference: &str, list: &[File]) -> Value {
    let one = |file: &File| {
        json!({
            "type": "file",
            "bom-ref": format!("{reference}/{}", file.name),
            "name": file.name,
            "hashes": [hash(file)],
            "properties": [property("bytes", &file.bytes.to_string())],
        })
    };
    list.iter().map(one).collect()
}

fn hash(file: &File) -> Value {
    json!({"alg": "SHA-256", "content": file.sha256})
}

fn license(stated: &Statement) -> Value {
    let mut fields = Map::new();
    match stated.licence() {
        Licence::Spdx(text) if text.contains([' ', '+']) => {
            return json!({"expression": text, "acknowledgement": "declared"});
        }
        Licence::Spdx(id) if !id.starts_with("LicenseRef-") => fields.insert("id".to_owned(), id.into()),
        Licence::Terms(terms) => fields.insert("name".to_owned(), terms.name.into()),
        _ => {
            let name = stated.name.clone().unwrap_or_else(|| stated.id.clone());
            fields.insert("name".to_owned(), name.into())
        }
    };
    fields.insert("acknowledgement".to_owned(), "declared".into());
    if let Some(link) = &stated.link {
        fields.insert("url".to_owned(), link.as_str().into());
    }
    json!({"license": fields})
}

fn property(name: &str, value: &str) -> Value {
    json!({"name": format!("seedcorn:{name}"), "value": value})
}

fn dependencies(export: &Export<'_>) -> Vec<Value> {
    let mut on = vec![BASE.to_owned()];
    if !export.adapter.is_empty() {
        on.push(ADAPTER.to_owned());
    }
    if let Some(run) = export.run {
        on.extend((1..=run.data.train.len()).map(|at| data_ref("train", at)));
        on.extend((1..=run.data.eval.len()).map(|at| data_ref("eval", at)));
    }
    vec![json!({"ref": SUBJECT, "dependsOn": on})]
}
