//! What a run came to, in a few numbers; its evaluations; its memory.

use serde::Serialize;

use super::facts::Facts;
use super::numbers::{duration, grouped, grouped_signed, measured};
use crate::evidence::Lock;
use crate::log::{Eval, Rows};
use crate::recipe::shown_bytes;

/// One number of the head of the page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    label: &'static str,
    value: String,
    note: String,
}

/// Collects the numbers that there are.
pub(super) fn figures(lock: &Lock, rows: &Rows) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut add = |label, value, note| figures.push(Figure { label, value, note });
    let perplexity = |row: &Eval| format!("perplexity {}", measured(row.loss.exp()));
    match (rows.evals.first(), rows.evals.last()) {
        (Some(first), Some(last)) if first.step < last.step => {
            let value = format!("{} \u{2192} {}", measured(first.loss), measured(last.loss));
            let change = (last.loss / first.loss - 1.0) * 100.0;
            let change = if change.is_finite() { format!("{change:+.1} %, ") } else { String::new() };
            add("Held-out loss", value, format!("{change}{}", perplexity(last)));
        }
        (Some(only), _) => add("Held-out loss", measured(only.loss), perplexity(only)),
        _ => {}
    }
    if let (Some(first), Some(last)) = (rows.steps.first(), rows.steps.last()) {
        let value = format!("{} \u{2192} {}", measured(first.loss), measured(last.loss));
        add("Training loss", value, "first and last step".to_owned());
        let of = grouped(lock.samples.total_steps);
        let trained = format!("{} trained tokens", grouped(last.trained_tokens));
        add("Steps", format!("{} of {of}", grouped(last.step)), trained);
    }
    let seconds = rows.values(|row| row.seconds);
    if !seconds.is_empty() && seconds.len() == rows.steps.len() {
        let total: f64 = seconds.iter().map(|(_, seconds)| seconds).sum();
        let speeds =
            rows.steps.iter().zip(&seconds).map(|(row, (_, seconds))| row.tokens_per_second * seconds);
        let tokens: f64 = speeds.sum();
        let speed = if total > 0.0 {
            format!("{} tokens a second", grouped_signed(tokens / total))
        } else {
            String::new()
        };
        add("Time in steps", duration(total), speed);
    }
    if let Some(peak) = peak(rows) {
        add("Peak memory", shown_bytes(peak), "resident, of the process".to_owned());
    }
    if let Some(most) = rows.steps.iter().filter_map(|row| row.device_memory_bytes).max() {
        add("Memory of the device", shown_bytes(most), "reserved for the run's tensors".to_owned());
    }
    figures
}

/// Returns the most memory that a process of the run had.
pub(super) fn peak(rows: &Rows) -> Option<u64> {
    rows.steps.iter().filter_map(|row| row.peak_memory_bytes).max()
}

/// The loss of one held-out source, or of all, before and after.
#[derive(Clone, Debug, Serialize)]
pub(super) struct EvalView {
    name: String,
    tokens: String,
    before: String,
    after: String,
    perplexity_before: String,
    perplexity_after: String,
}

/// Both ends of the evaluations.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Evaluations {
    before_step: String,
    after_step: String,
    rows: Vec<EvalView>,
}

impl Evaluations {
    /// Compares the first with the last; nothing where there is none.
    pub(super) fn of(rows: &Rows) -> Option<Evaluations> {
        let (first, last) = (rows.evals.first()?, rows.evals.last()?);
        let view = |name: &str, tokens: u64, before: Option<f64>, after: f64| EvalView {
            name: name.to_owned(),
            tokens: grouped(tokens),
            before: before.map_or("-".to_owned(), measured),
            after: measured(after),
            perplexity_before: before.map_or("-".to_owned(), |loss| measured(loss.exp())),
            perplexity_after: measured(after.exp()),
        };
        let before = |name: &str| first.sources.iter().find(|one| one.name == name).map(|one| one.loss);
        let sources = last.sources.iter();
        let mut views: Vec<_> =
            sources.map(|one| view(&one.name, one.tokens, before(&one.name), one.loss)).collect();
        let all = if views.is_empty() { "held-out samples" } else { "all" };
        views.push(view(all, last.tokens, Some(first.loss), last.loss));
        Some(Evaluations { before_step: when(first.step), after_step: when(last.step), rows: views })
    }
}

/// Says after how many steps something was.
pub(super) fn when(step: u64) -> String {
    match step {
        0 => "before step 1".to_owned(),
        1 => "after 1 step".to_owned(),
        _ => format!("after {} steps", grouped(step)),
    }
}

/// One item of the plan of memory.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MemoryView {
    what: String,
    bytes: String,
}

/// Returns the bytes that were planned.
pub(super) fn planned(facts: &Facts) -> u64 {
    let memory = &facts.memory;
    memory.weights.saturating_add(memory.adapter).saturating_add(memory.activations)
}

/// Lists the plan and what was measured.
pub(super) fn memory(facts: &Facts, rows: &Rows) -> Vec<MemoryView> {
    let plan = &facts.memory;
    let mut views = Vec::new();
    let mut add = |what: String, bytes: u64| views.push(MemoryView { what, bytes: shown_bytes(bytes) });
    add("frozen weights, as they are kept (estimate)".to_owned(), plan.weights);
    let trained = grouped(facts.model.trained);
    add(format!("adapter, its gradient and two moments: {trained} values of 16 bytes"), plan.adapter);
    let kept = format!(
        "kept for the backward pass: {} of {} blocks whole, {} tokens at once (estimate)",
        plan.kept_blocks,
        facts.model.layers,
        grouped(plan.tokens)
    );
    add(kept, plan.activations);
    if let Some(budget) = plan.budget {
        add("of that at most, by the budget".to_owned(), budget);
    }
    add("planned in all".to_owned(), planned(facts));
    if let Some(peak) = peak(rows) {
        add("measured: the most that was resident at once".to_owned(), peak);
    }
    views
}
