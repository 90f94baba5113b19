//! Whether a machine has the memory of a plan, and what would help where it has not.

use serde::Serialize;

use super::{Memory, Subject};
use crate::build::Prepared;
use crate::error::Explained;
use crate::log::MachineMemory;
use crate::recipe::{Activation, Quantize, shown_bytes};

/// Share of a plan below which no run was measured (see `docs/scale.md`): a run is refused only where not even this
/// much is there.
const SURELY: f64 = 0.8;

/// A plan beside a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// Bytes that are there.
    pub memory: u64,
    /// Bytes that are needed.
    pub needed: u64,
    /// Whether they are there.
    pub fits: bool,
    /// Changes of the recipe, each on top of those before it, and what is needed then.
    pub helps: Vec<(String, u64)>,
}

/// A plan that does not fit.
#[derive(Debug, thiserror::Error)]
#[error("the run needs {}, but {place} {}", shown_bytes(*.needed), shown_bytes(*.memory))]
pub struct NotEnough {
    /// Bytes that are needed.
    needed: u64,
    /// Whose memory it is, and a verb.
    place: &'static str,
    /// Bytes that are there.
    memory: u64,
    /// As in [`Fit::helps`].
    helps: Vec<(String, u64)>,
}

impl NotEnough {
    /// What to change.
    pub fn hint(&self) -> String {
        let shown: Vec<String> = self
            .helps
            .iter()
            .map(|(change, bytes)| format!("`{change}` ({})", shown_bytes(*bytes)))
            .collect();
        match self.helps.last() {
            None => "take a machine with more memory, a smaller model or shorter samples".to_owned(),
            Some((_, bytes)) if *bytes <= self.memory => format!("set {}", shown.join(", and ")),
            Some(_) => format!(
                "set {}; for more, take a machine with more memory, a smaller model or shorter samples",
                shown.join(", and ")
            ),
        }
    }
}

impl From<NotEnough> for Explained {
    fn from(error: NotEnough) -> Self {
        Explained::new(error.to_string()).with_hint(error.hint())
    }
}

impl Fit {
    /// Compares what is needed with a machine's memory; `needed` says which of a plan's numbers counts.
    pub fn new(subject: &Subject, threads: usize, memory: u64, needed: fn(&Memory) -> u64) -> Self {
        let bytes = needed(&Memory::new(subject, threads));
        let fits = bytes <= memory;
        let helps = if fits { Vec::new() } else { helps(subject, threads, memory, needed) };
        Self { memory, needed: bytes, fits, helps }
    }

    /// Words a plan that does not fit.
    pub fn error(&self, place: &'static str) -> NotEnough {
        NotEnough { needed: self.needed, place, memory: self.memory, helps: self.helps.clone() }
    }
}

/// Lists changes, one on top of the other until the plan fits; those that save nothing are left out.
pub fn helps(
    subject: &Subject,
    threads: usize,
    memory: u64,
    needed: fn(&Memory) -> u64,
) -> Vec<(String, u64)> {
    type Change = fn(&mut Subject);
    let mut subject = subject.clone();
    let mut least = needed(&Memory::new(&subject, threads));
    let mut found = Vec::new();
    let changes: [(&str, Change); 4] = [
        ("train.activation = \"recompute\"", |subject| {
            subject.recipe.train.activation = Activation::Recompute;
            subject.recipe.train.memory_budget = None;
        }),
        ("train.micro_batch = 1", |subject| subject.recipe.train.micro_batch = 1),
        ("model.quantize = \"nf4\"", |subject| {
            if subject.frozen.kind.is_dense() {
                subject.recipe.model.quantize = Quantize::Nf4;
                subject.recipe.model.double_quant = Some(true);
                subject.with_shapes();
            }
        }),
        ("parallel.shard_base = true", |subject| {
            subject.recipe.parallel.shard_base = true;
            subject.with_shapes();
        }),
    ];
    for (words, change) in changes {
        if least <= memory {
            break;
        }
        let mut changed = subject.clone();
        change(&mut changed);
        if changed.on_a_machine_with(memory).is_err() {
            continue;
        }
        let bytes = needed(&Memory::new(&changed, threads));
        if bytes < least {
            (least, subject) = (bytes, changed);
            found.push((words.to_owned(), bytes));
        }
    }
    found
}

/// Compares a prepared run with this machine, whose process has all its ranks as threads unless they were launched.
///
/// Returns a warning where the memory that is free now is less than the plan.
/// Ranks that a launcher has started are processes of their own, which share the memory of their machine.
///
/// # Errors
/// [`NotEnough`] where not even a share of the plan that every run has needed is in the machine, swap included.
pub fn before_a_run(prepared: &Prepared, launched: bool) -> Result<Option<String>, Explained> {
    let Some(MachineMemory { total, available, swap }) = MachineMemory::here() else { return Ok(None) };
    let each = if launched { prepared.recipe.parallel.on_this_machine.max(1) } else { 1 };
    let machine = MachineMemory { total: total / each, available: available / each, swap: swap / each };
    judge(&Subject::of(prepared), machine, launched).map_err(Explained::from)
}

pub(super) fn judge(
    subject: &Subject,
    machine: MachineMemory,
    launched: bool,
) -> Result<Option<String>, NotEnough> {
    let ranks = if launched { 1 } else { subject.ranks() as usize };
    let threads = rayon::current_num_threads().div_ceil(ranks);
    let needed: fn(&Memory) -> u64 =
        if launched { |memory| memory.peak } else { |memory| memory.peak_of_all };
    let bytes = needed(&Memory::new(subject, threads));
    if bytes as f64 * SURELY > machine.total.saturating_add(machine.swap) as f64 {
        return Err(Fit::new(subject, threads, machine.total, needed).error("this machine has"));
    }
    let (bytes, free) = (shown_bytes(bytes), (bytes > machine.available).then_some(machine.available));
    Ok(free.map(|free| {
        format!(
            "the run needs about {bytes}, and {} are free: `seedcorn plan` says for what",
            shown_bytes(free)
        )
    }))
}
