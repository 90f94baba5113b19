//! What transformers computed of a tiny model: cases a and b of `scripts/reference/make_tiny_models.py`.

use std::collections::BTreeMap;

use seedcorn_tests::model::{Values, fixture, json, tensors};

/// A model of each supported architecture, with the variants that it has.
pub(crate) const FAMILIES: [&str; 5] = ["llama", "llama-tied", "mistral-swa", "qwen2", "qwen3"];
/// The same configuration as transformers 5 and as repositories of transformers 4 write it.
pub(crate) const DIALECTS: [&str; 2] = ["config.json", "config_v4.json"];

/// Rows of tokens without their padding, and what came of them.
pub(crate) struct Case {
    /// `(input_ids, labels)` of each row.
    pub(crate) rows: Vec<(Vec<u32>, Vec<i32>)>,
    /// `[tokens of all rows, vocab]`.
    pub(crate) logits: Vec<f64>,
    /// Mean loss.
    pub(crate) loss: f64,
}

/// Reads case `a` (no padding) or `b` (padding on the right, labels masked) of a model.
pub(crate) fn case(model: &str, case: char) -> Case {
    let folder = fixture("models").join(model);
    let tensors = tensors(&folder.join("reference.safetensors"));
    let loss = json(&folder.join("reference.json"))[format!("loss_{case}")].as_f64().expect("a loss");
    let named = |what: &str| tensors.get(&format!("{what}_{case}"));
    let ids = named("input_ids").expect("ids");
    let labels = named("labels").unwrap_or(ids);
    let logits = named("logits").expect("logits");
    let (width, vocab) = (ids.shape[1], logits.shape[2]);
    let mut case = Case { rows: Vec::new(), logits: Vec::new(), loss };
    for (row, (ids, labels)) in ids.rows().zip(labels.rows()).enumerate() {
        let used = used(named("attention_mask"), row, width);
        let ids = ids[..used].iter().map(|&id| id as u32).collect();
        case.rows.push((ids, labels[..used].iter().map(|&label| label as i32).collect()));
        case.logits.extend(&logits.values[row * width * vocab..][..used * vocab]);
    }
    case
}

/// Returns the number of tokens before the padding.
fn used(mask: Option<&Values>, row: usize, width: usize) -> usize {
    let Some(mask) = mask else { return width };
    let row: Vec<f64> = mask.rows().nth(row).expect("a row").to_vec();
    let used = row.iter().filter(|&&seen| seen == 1.0).count();
    assert!(row[..used].iter().all(|&seen| seen == 1.0), "padding is on the right");
    used
}

/// Reads the gradients of the loss of case a with respect to every weight.
pub(crate) fn gradients(model: &str) -> BTreeMap<String, Values> {
    tensors(&fixture("models").join(model).join("grads.safetensors"))
}
