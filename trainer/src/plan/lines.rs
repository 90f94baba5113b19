//! What a prepared run will do, in lines: derived numbers that a recipe only implies.

use seedcorn_data::Statistics;

use crate::build::Prepared;
use crate::recipe::shown_bytes;

/// What is given up by a setting.
const FAST: &str = "`parallel.reduction` is \"fast\": another number of ranks gives other bits";

/// Describes the run: model, data, adapter and the arithmetic of a step.
pub fn lines(prepared: &Prepared) -> Vec<String> {
    let Prepared { recipe, base, dataset, .. } = prepared;
    let spec = &base.spec;
    let parameters: usize = spec.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let trained: usize = prepared.weights.iter().map(|one| one.a.len() + one.b.len()).sum();
    let unit = if recipe.data.packing { "pack" } else { "sequence" };
    let sum = |count: fn(&Statistics) -> u64| dataset.statistics().iter().map(count).sum::<u64>();
    let eval: usize = dataset.eval().iter().map(|source| source.samples.len()).sum();
    let mut lines = vec![
        format!(
            "model: {} ({}, {:.1} M parameters, {} layers)",
            base.name,
            spec.model_type,
            parameters as f64 / 1e6,
            spec.num_layers
        ),
        format!(
            "data: {} samples, {} tokens, {} trained; {eval} samples held out",
            sum(|one| one.samples),
            sum(|one| one.tokens),
            sum(|one| one.trained_tokens)
        ),
        format!("adapter: {} layers, {:.2} M trained values", prepared.weights.len(), trained as f64 / 1e6),
        format!(
            "{} {unit}s x {} micro-batches = {} {unit}s a step; {} {unit}s an epoch; {} steps",
            recipe.train.micro_batch,
            recipe.train.accumulation(),
            recipe.train.batch_size,
            prepared.order.units_per_epoch(),
            prepared.steps
        ),
    ];
    lines.extend(prepared.licences.lines());
    let mesh = recipe.parallel.mesh();
    let each = recipe.train.accumulation() / mesh.data as u64;
    match (mesh.data, mesh.tensor) {
        (1, 1) => {}
        (ranks, 1) => lines.push(format!("{ranks} ranks x {each} micro-batches")),
        (data, tensor) => lines.push(format!(
            "{} ranks, {data} (data) x {tensor} (tensor): {tensor} compute each of {each} micro-batches together",
            mesh.ranks()
        )),
    }
    if mesh.data > 1 && !recipe.parallel.reduction.is_tree() {
        lines.push(FAST.to_owned());
    }
    match recipe.parallel.parts() {
        1 => {}
        parts => lines.push(format!("each rank keeps a part of {parts} of the frozen weights")),
    }
    if let Some(budget) = prepared.memory.budget {
        lines.push(kept(&prepared.memory, budget, spec.num_layers));
    }
    lines
}

/// Describes what was chosen to be kept. What the forward pass cannot do without may be more than the budget.
fn kept(memory: &crate::memory::Plan, budget: u64, layers: usize) -> String {
    let (bytes, shown) = (shown_bytes(memory.bytes), shown_bytes(budget));
    let over = if memory.bytes > budget { ", which is less than the inputs of the blocks take" } else { "" };
    format!(
        "activations: {} of {layers} blocks kept; {bytes} for {} tokens at once, of a budget of {shown}{over}",
        memory.kept_blocks, memory.tokens
    )
}

/// Says what was cut, dropped or looks wrong while the data was read: nothing of this is silent.
pub fn warnings(prepared: &Prepared) -> Vec<String> {
    let eval = prepared.dataset.eval().iter().map(|source| &source.statistics);
    let max_length = prepared.recipe.data.max_length;
    let mut warnings = prepared.licences.warnings(&prepared.recipe);
    let data = prepared.dataset.statistics().iter().chain(eval).flat_map(|one| {
        let cases = [
            (one.truncated, format!("samples were cut to `data.max_length` ({max_length})")),
            (one.dropped_long, format!("samples longer than `data.max_length` ({max_length}) were left out")),
            (one.dropped_truncated, "samples were left out: the cut took all that they train".to_owned()),
            (one.dropped_untrained, "samples were left out: nothing in them is trained".to_owned()),
            (one.double_bos, "samples began with two BOS tokens; one was taken out".to_owned()),
            (one.missing_eos, "samples have an answer without an end token".to_owned()),
        ];
        let name = one.name.clone();
        cases
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(move |(count, what)| format!("`{name}`: {count} {what}"))
    });
    warnings.extend(data);
    warnings
}
