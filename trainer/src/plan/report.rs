//! A plan for people and for programs.

use serde::Serialize;

use super::memory::shown_count;
use super::{Fit, Memory, Subject};
use crate::parallel::Sent;
use crate::recipe::shown_bytes;

/// Everything that `seedcorn plan` says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Family of the model.
    pub model_type: String,
    /// Its parameters.
    pub parameters: u64,
    /// Values of the adapter.
    pub trained_values: u64,
    /// All ranks.
    pub ranks: u64,
    /// How they are laid out; `tensor` is absent where every rank holds the whole model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor: Option<u64>,
    /// Micro-batches of each rank in a step.
    pub micro_batches: u64,
    /// Tokens of the largest micro-batch.
    pub tokens: usize,
    /// Whether the model's configuration is all that was read: samples are then taken to be `data.max_length` long.
    pub imagined: bool,
    /// Whether all ranks are threads of one process; otherwise each has a machine of its own.
    pub one_process: bool,
    /// Whether each keeps a part of the frozen weights only.
    pub in_parts: bool,
    /// The memory of a rank.
    pub memory: Memory,
    /// What the rank that sends most sends to all others.
    pub traffic: Sends,
    /// The plan beside a machine, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
}

/// Bytes that a rank sends.
#[derive(Clone, Debug, Serialize)]
pub struct Sends {
    /// In each step.
    pub step: Vec<Sent>,
    /// Before each checkpoint, and at the end.
    pub checkpoint: Option<Sent>,
    /// In each evaluation.
    pub evaluation: Option<Sent>,
    /// What each evaluation takes of weights and activations, where ranks hold a model together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evaluation_weights: Vec<Sent>,
}

impl Sends {
    fn new(subject: &Subject) -> Self {
        let (traffic, batches) = (subject.traffic(), subject.evaluation[1]);
        let [weights, evaluation_weights] = subject.weights_sent();
        let [slices, evaluation_slices] = subject.slices_sent();
        Self {
            step: [weights, slices, traffic.most_of_step()].concat(),
            evaluation_weights: [evaluation_weights, evaluation_slices].concat(),
            checkpoint: traffic.of_checkpoint(),
            evaluation: (batches > 0).then(|| traffic.of_evaluation(batches)).flatten(),
        }
    }
}

impl Report {
    /// Makes the plan of a run in which every rank computes with so many threads.
    pub fn new(subject: &Subject, threads: usize, one_process: bool, fit: Option<Fit>) -> Self {
        let size = |shape: &[usize]| shape.iter().fold(1u64, |all, &one| all.saturating_mul(one as u64));
        let parameters = subject.spec.parameters();
        let ranks = subject.ranks();
        Self {
            model_type: subject.spec.model_type.clone(),
            parameters: parameters.iter().map(|(_, shape)| size(shape)).fold(0, u64::saturating_add),
            trained_values: subject.trained_values(),
            ranks,
            tensor: Some(subject.mesh().tensor as u64).filter(|tensor| *tensor > 1),
            micro_batches: subject.recipe.train.accumulation() / subject.mesh().data as u64,
            tokens: subject.activations.tokens,
            imagined: subject.imagined,
            one_process,
            in_parts: subject.parts.is_some(),
            memory: Memory::new(subject, threads),
            traffic: Sends::new(subject),
            fit,
        }
    }

    /// The plan in lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "model: {}, {} parameters, {} trained values",
            self.model_type,
            shown_count(self.parameters),
            shown_count(self.trained_values)
        )];
        let ranks = counted(self.ranks, "rank");
        let layout = self.tensor.map_or_else(String::new, |tensor| {
            format!(", {} (data) x {tensor} (tensor)", self.ranks / tensor)
        });
        let ranks = format!("{ranks}{layout}");
        let each = if self.ranks > 1 { "each with " } else { "" };
        lines.push(format!(
            "mesh: {ranks}, {each}{} of up to {} tokens a step",
            counted(self.micro_batches, "micro-batch"),
            self.tokens
        ));
        if self.imagined {
            lines.push("samples: taken to be `data.max_length` long; the model has no weights here, and no data was read".to_owned());
        }
        lines.push(String::new());
        lines.extend(self.memory_lines());
        if !self.traffic.step.is_empty() {
            lines.push(String::new());
            lines.extend(self.traffic_lines());
        }
        if let Some(fit) = &self.fit {
            lines.push(String::new());
            let verdict = if fit.fits { "fits" } else { "does not fit" };
            lines.push(format!(
                "{verdict}: {} needed, {} there",
                shown_bytes(fit.needed),
                shown_bytes(fit.memory)
            ));
        }
        lines
    }

    fn memory_lines(&self) -> Vec<String> {
        let row = |name: &str, bytes: u64, note: &str| {
            format!("  {name:<18}{:>9}  {note}", shown_bytes(bytes)).trim_end().to_owned()
        };
        let mut lines = vec!["memory of a rank in a step".to_owned()];
        lines.extend(self.memory.items.iter().map(|item| row(item.item, item.bytes(), &item.note)));
        let step = self.memory.parts.iter().find(|part| part.part == "step").map_or(0, |part| part.bytes);
        lines.push(row("together", step, ""));
        let others: Vec<String> = self
            .memory
            .parts
            .iter()
            .filter(|part| part.part != "step")
            .map(|part| format!("{} {}", part.part, shown_bytes(part.bytes)))
            .collect();
        lines.push(format!("at other times: {}", others.join(", ")));
        lines.push(format!("most at once: {}", shown_bytes(self.memory.peak)));
        if self.ranks > 1 && self.one_process {
            let all = shown_bytes(self.memory.peak_of_all);
            let shared = if self.in_parts { "" } else { ", which share the weights" };
            lines.push(format!("all {} ranks as threads of one process{shared}: {all}", self.ranks));
        }
        lines
    }

    fn traffic_lines(&self) -> Vec<String> {
        let row = |sent: &Sent, when: &str| {
            format!("  {:<12}{:<12}{:>9}  {when}", sent.op, sent.collective, shown_bytes(sent.bytes))
                .trim_end()
                .to_owned()
        };
        let mut lines = vec!["sent by a rank to all others".to_owned()];
        lines.extend(self.traffic.step.iter().map(|sent| row(sent, "a step")));
        let evaluation = self.traffic.evaluation_weights.iter().chain(&self.traffic.evaluation);
        lines.extend(evaluation.map(|sent| row(sent, "an evaluation")));
        lines.extend(self.traffic.checkpoint.iter().map(|sent| row(sent, "a checkpoint, and at the end")));
        let step: u64 = self.traffic.step.iter().map(|sent| sent.bytes).sum();
        lines.push(format!("  {:<24}{:>9}  a step", "together", shown_bytes(step)));
        lines
    }
}

/// A number with its noun.
fn counted(count: u64, noun: &str) -> String {
    let end = match (count, noun.ends_with("ch")) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{count} {noun}{end}")
}
