//! All memory of one rank, item by item, and the parts of a run that have a peak of their own.

use serde::Serialize;

use super::Subject;
use super::workspace::Workspace;
use crate::recipe::{AdapterStart, Compute, Merged};

/// The program, its libraries, and what reading a recipe leaves behind.
const PROGRAM_BYTES: u64 = 13 << 20;
/// A tokenizer in memory, for each entry of its vocabulary. Measured: 34 MB for 49152 entries.
const TOKENIZER_BYTES: u64 = 700;
/// A token of a sample in memory: its id and its label.
const TOKEN_BYTES: u64 = 8;
/// What ranks that are processes need to reach each other. Measured with Open MPI 4.1 on one machine: 31 MB with two ranks,
/// 28 to 40 MB with four.
const MESSAGES_BYTES: u64 = 32 << 20;
/// Share of what comes and goes in a step that the allocator does not find room for where something else was.
const PIECES: f64 = 0.06;
/// Bytes of an f32.
const F32: u64 = 4;

/// One item of a rank's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is.
    pub item: &'static str,
    /// Bytes that ranks in one process share.
    pub shared: u64,
    /// Bytes of each rank.
    pub own: u64,
    /// How the bytes come about.
    pub note: String,
    /// Different ones that ranks in one process share: as many as the model has slices, where it is of the model.
    #[serde(skip)]
    pub slices: u64,
}

impl Item {
    fn shared(item: &'static str, bytes: u64, note: impl Into<String>) -> Self {
        Self { item, shared: bytes, own: 0, note: note.into(), slices: 1 }
    }

    fn own(item: &'static str, bytes: u64, note: impl Into<String>) -> Self {
        Self { item, shared: 0, own: bytes, note: note.into(), slices: 1 }
    }

    /// Bytes of a process with one rank.
    pub fn bytes(&self) -> u64 {
        self.shared.saturating_add(self.own)
    }
}

/// A part of a run and the most memory that it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What the run does.
    pub part: &'static str,
    /// Most bytes of a process with one rank.
    pub bytes: u64,
}

/// The memory of a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What a training step needs; the sum is its peak.
    pub items: Vec<Item>,
    /// Loading, a step, evaluation and so on, each with its own peak.
    pub parts: Vec<Part>,
    /// Most bytes of a process with one rank.
    pub peak: u64,
    /// Most bytes of one process with all ranks.
    pub peak_of_all: u64,
}

impl Memory {
    /// Adds up for a rank that computes with so many threads.
    pub fn new(subject: &Subject, threads: usize) -> Self {
        let workspace = Workspace::new(subject, threads as u64);
        let mut items = items(subject, &workspace);
        // What a step needs only while it runs is free for everything else.
        let passing = |item: &&Item| matches!(item.item, ACTIVATIONS | WORKSPACE | GRADIENTS);
        let sum = |items: &mut dyn Iterator<Item = u64>| items.fold(0, u64::saturating_add);
        let passes = sum(&mut items.iter().filter(passing).map(Item::bytes));
        items.push(Item::own("heap", (passes as f64 * PIECES) as u64, "freed and not used again"));
        let passing = |item: &&Item| passing(item) || item.item == "heap";
        let step = sum(&mut items.iter().map(Item::bytes));
        let step_of_all = {
            let ranks = subject.ranks();
            let of_item = |item: &Item| {
                let shared = item.shared.saturating_mul(item.slices);
                shared.saturating_add(item.own.saturating_mul(ranks))
            };
            sum(&mut items.iter().map(of_item))
        };
        let passes = sum(&mut items.iter().filter(passing).map(Item::bytes));
        let resident = step - passes;
        let adapter = subject.trained_values().saturating_mul(F32);
        let mut parts = vec![
            Part { part: "loading", bytes: PROGRAM_BYTES.saturating_add(loading(subject)) },
            Part { part: "step", bytes: step },
        ];
        let mut part = |part, more: u64| parts.push(Part { part, bytes: resident.saturating_add(more) });
        if subject.mesh().data > 1 {
            let adapter = subject.values_of_rank().saturating_mul(F32);
            let held = adapter.saturating_mul(subject.traffic().most_parts() as u64);
            part("sum over ranks", held.saturating_mul(2).saturating_add(adapter.saturating_mul(2)));
        }
        if subject.evaluation[0] > 0 {
            part("evaluation", workspace.forward.saturating_add(workspace.packed));
        }
        if subject.recipe.checkpoint.every_steps > 0 {
            part("checkpoint", adapter.saturating_mul(4));
        }
        if subject.recipe.export.merged != Merged::None {
            let whole = merged(subject);
            // Tensors of a model do not fit everywhere where a step's were.
            let pieces = passes.min(whole / 4);
            let copies = adapter.saturating_mul(2).saturating_add(tokenizer(subject));
            part("merged export", whole.saturating_add(pieces).saturating_add(copies));
        }
        let other = parts.iter().filter(|part| part.part != "step").map(|part| part.bytes).max().unwrap_or(0);
        Self { peak: step.max(other), peak_of_all: step_of_all.max(other), items, parts }
    }
}

const GRADIENTS: &str = "gradients";
const ACTIVATIONS: &str = "activations";
const WORKSPACE: &str = "workspace";

fn items(subject: &Subject, workspace: &Workspace) -> Vec<Item> {
    let (frozen, recipe, spec) = (&subject.frozen, &subject.recipe, &subject.spec);
    let values = subject.trained_values();
    let adapter = values.saturating_mul(F32);
    let program = PROGRAM_BYTES + tokenizer(subject) + TOKEN_BYTES.saturating_mul(subject.data_tokens as u64);
    let dense = match recipe.model.compute {
        Compute::F32 => "f32",
        Compute::Bf16 => "bf16",
    };
    let mut items = if subject.ranks() > 1 && recipe.parallel.launched {
        vec![Item::shared("program", program + MESSAGES_BYTES, "code, tokenizer, data, Open MPI")]
    } else {
        vec![Item::shared("program", program, "code, tokenizer, data")]
    };
    let words = if spec.tie_word_embeddings { format!("{dense}; also the head") } else { dense.to_owned() };
    match &subject.parts {
        None => {
            items.push(Item::shared("linear layers", frozen.linear, frozen.kind.words()));
            items.push(Item::shared("embedding", frozen.embedding, words));
            if !spec.tie_word_embeddings {
                items.push(Item::shared("head", frozen.head, dense));
            }
        }
        Some(parts) => {
            let last = parts.ranks() - 1;
            let part = format!("; a part of {}", parts.ranks());
            let kind = frozen.kind.words();
            items.push(Item::own("linear layers", parts.own_blocks(last), format!("{kind}{part}")));
            items.push(Item::own("embedding", parts.own_table(last), words + &part));
            if !spec.tie_word_embeddings {
                items.push(Item::own("head", parts.own_table(last), dense.to_owned() + &part));
            }
            items.push(Item::own("gather buffers", parts.gathered(), "the block at hand, and the next"));
        }
    }
    items.push(Item::shared("norms and biases", frozen.small, "f32"));
    let tensor = subject.mesh().tensor as u64;
    let of_model = |item: &&mut Item| tensor > 1 && item.item != "program" && item.item != "gather buffers";
    for item in items.iter_mut().filter(of_model) {
        item.slices = tensor;
        item.note = format!("{}; one of {tensor} slices", item.note);
    }
    // The first values stay, and beside several ranks the state they all start from. Of a fresh start, `B` and one set of
    // moments are zeros that no one writes, which take no memory.
    let first = match recipe.adapter.start {
        AdapterStart::Fresh(_) => subject.input_values().saturating_mul(F32),
        AdapterStart::From { .. } => adapter,
    };
    let start = if subject.ranks() > 1 { adapter } else { 0 };
    items.push(Item {
        item: "adapter",
        shared: first.saturating_add(start),
        own: adapter,
        note: format!("{} values in f32, and those at the start", shown_count(values)),
        slices: 1,
    });
    let note = if start > 0 { "two moments in f32, and those at the start" } else { "two moments in f32" };
    items.push(Item {
        item: "optimizer",
        shared: start,
        own: adapter.saturating_mul(2),
        note: note.to_owned(),
        slices: 1,
    });
    let held = subject.traffic().held_sums() as u64;
    let note = match held {
        0 => "of one micro-batch, in f32".to_owned(),
        _ => format!("{} times, in f32: of a micro-batch, and sums that wait in the tree", held + 1),
    };
    let of_slice = subject.values_of_rank().saturating_mul(F32).saturating_mul(held + 1);
    let (gradients, note) = match tensor {
        1 => (of_slice, note),
        _ => (
            of_slice.saturating_add(adapter),
            format!("{note}, of this slice; then those of the whole adapter"),
        ),
    };
    items.push(Item::own(GRADIENTS, gradients, note));
    let activations = &subject.activations;
    let note = format!(
        "{} tokens at once; {} of {} blocks kept, the others computed again",
        activations.tokens, activations.kept_blocks, spec.num_layers
    );
    let note = if activations.kept_blocks == spec.num_layers {
        format!("{} tokens at once; all blocks kept", activations.tokens)
    } else {
        note
    };
    items.push(Item::own(ACTIVATIONS, activations.bytes, note));
    let Workspace { block, head, packed, sums, .. } = *workspace;
    let larger = if block >= head { "a block's backward pass" } else { "the head and its loss" };
    let and_sums = if sums > 0 { ", sums over slices" } else { "" };
    items.push(Item::own(
        WORKSPACE,
        block.max(head).saturating_add(packed).saturating_add(sums),
        format!("{larger}, packed operands{and_sums}"),
    ));
    items
}

/// The most bytes while weights are read.
fn loading(subject: &Subject) -> u64 {
    let Some(parts) = &subject.parts else { return subject.frozen.loading };
    let last = parts.ranks() - 1;
    let tables = parts.own_table(last).saturating_mul(if parts.tied() { 1 } else { 2 });
    parts.own_blocks(last).saturating_add(tables).saturating_add(subject.frozen.largest)
}

/// Writes a count for people, in millions where it is large.
pub(super) fn shown_count(count: u64) -> String {
    if count < 100_000 { count.to_string() } else { format!("{:.2} M", count as f64 / 1e6) }
}

fn tokenizer(subject: &Subject) -> u64 {
    if subject.tokenizer { TOKENIZER_BYTES * subject.spec.vocab_size as u64 } else { 0 }
}

/// Bytes of the whole model in f32, as which a merged one is compared (`merge`).
fn merged(subject: &Subject) -> u64 {
    let parameters = subject.spec.parameters();
    let values = parameters
        .iter()
        .map(|(_, shape)| shape.iter().fold(1u64, |all, &one| all.saturating_mul(one as u64)));
    values.fold(0, u64::saturating_add).saturating_mul(F32)
}
