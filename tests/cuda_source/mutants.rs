//! Kernels with a fault, which the checks must find: else the checks say nothing.

use std::path::Path;

use seedcorn_kernels::cuda_source::Kernel;
use seedcorn_kernels::lora_linear::Dropout;

use crate::interpreter::Interpreter;
use crate::linear::{Case, PLAIN};
use crate::numbers::Compared;
use crate::{attention, linear, loss};

/// A change of the CUDA C++ of a kernel; `None` where it does not hold what is changed.
type Change = fn(&str) -> Option<String>;

/// An op with its inputs.
pub(crate) trait Op: Send {
    /// Runs it; what is compared are its results.
    fn run(&self, device: &mut Interpreter) -> Result<Vec<Compared>, String>;
}

impl Op for linear::Case {
    fn run(&self, device: &mut Interpreter) -> Result<Vec<Compared>, String> {
        self.run(device)
    }
}

impl Op for attention::Case {
    fn run(&self, device: &mut Interpreter) -> Result<Vec<Compared>, String> {
        self.run(device)
    }
}

impl Op for loss::Case {
    fn run(&self, device: &mut Interpreter) -> Result<Vec<Compared>, String> {
        self.run(device)
    }
}

/// What is broken, the op that must notice, and the change.
type Mutant = (&'static str, Box<dyn Op>, Change);

const DROPOUT: Option<Dropout> = Some(Dropout { probability: 0.25, key: 77, columns: None });

/// All of them.
pub(crate) fn mutants() -> Vec<Mutant> {
    let mut mutants: Vec<Mutant> = Vec::new();
    mutants.extend(of_linear().into_iter().map(|(name, case, change)| (name, Box::new(case) as _, change)));
    mutants
        .extend(of_attention().into_iter().map(|(name, case, change)| (name, Box::new(case) as _, change)));
    mutants.extend(of_loss().into_iter().map(|(name, case, change)| (name, Box::new(case) as _, change)));
    mutants
}

/// Faults of the kernels of the loss.
fn of_loss() -> Vec<(&'static str, loss::Case, Change)> {
    let plain = loss::PLAIN;
    let two_blocks = loss::Case { tokens: 20, hidden: 16, vocab: 4096 + 200, ..plain };
    vec![
        ("rows_of_the_first_block_only", two_blocks, |text| {
            once_in_product(text, "scalars_u32[7]", "scalars_u32[9]")
        }),
        ("sums_that_do_not_shrink", two_blocks, |text| of_softmax(text, "= exp(", "= fabsf(")),
        ("loss_barrier_dropped", plain, |text| of_softmax(text, "__syncthreads();", "")),
    ]
}

/// Faults of the kernels of attention.
fn of_attention() -> Vec<(&'static str, attention::Case, Change)> {
    let plain = attention::PLAIN;
    let windowed = attention::Case { window: Some(33), ..plain };
    vec![
        ("scores_without_a_scale", plain, |text| nth(text, "scalars_f32[0]", "scalars_f32[1]", 0)),
        ("heads_of_another_group", plain, |text| nth(text, "scalars_u32[2]", "scalars_u32[1]", 0)),
        ("window_of_all", windowed, |text| nth(text, "scalars_u32[3]", "scalars_u32[0]", 0)),
        ("values_not_transposed", plain, |text| every(text, "x4.trans.", "x4.")),
        ("attention_barrier_before_products_dropped", plain, |text| drop_barrier(text, 1)),
        ("attention_barrier_after_products_dropped", plain, |text| drop_barrier(text, 0)),
        ("maximum_of_half_a_row", plain, |text| nth(text, "__shfl_xor_sync", "__shfl_up_sync", 1)),
    ]
}

/// Faults of the products of `lora_linear`.
fn of_linear() -> Vec<(&'static str, Case, Change)> {
    let dropped = Case { dropout: DROPOUT, ..PLAIN };
    vec![
        ("scale_of_another_block", PLAIN, |text| shift_by_constant(text, 6, 5)),
        ("offset_of_the_scales_forgotten", PLAIN, |text| constant(text, 272, 271)),
        ("nested_scales_misplaced", PLAIN, |text| constant(text, 273, 274)),
        ("no_low_rank_term", PLAIN, |text| once(text, "info_st", "scalars_u32[10]", "scalars_u32[18]")),
        ("mask_of_another_seed", dropped, |text| every(text, "13787848793156543929", "13787848793156543931")),
        ("right_column_of_rows", PLAIN, |text| {
            every(text, "nvcuda::wmma::col_major", "nvcuda::wmma::row_major")
        }),
        // Barrier 0 is for the table of NF4, which the second product does not read: its barriers come in between.
        ("barrier_before_the_first_stretch_dropped", PLAIN, |text| barrier(text, 1)),
        ("barrier_between_stretches_dropped", PLAIN, |text| barrier(text, 2)),
        ("barrier_of_the_second_product_dropped", PLAIN, |text| barrier(text, 3)),
        ("last_barrier_dropped", PLAIN, |text| barrier(text, 4)),
        ("no_guard_of_rows", Case { tokens: 100, ..PLAIN }, guards),
    ]
}

/// Runs a mutant; an error says that nothing noticed.
pub(crate) fn check(toolkit: &Path, op: &dyn Op, change: Change) -> Result<(), String> {
    let changed = std::cell::Cell::new(0);
    let mutation = |_: Kernel, text: &str| match change(text) {
        Some(mutant) => {
            changed.set(changed.get() + 1);
            mutant
        }
        None => text.to_owned(),
    };
    let mut device = Interpreter::new(toolkit, 1).mutated(&mutation);
    let outcome = op.run(&mut device).and_then(|compared| compared.iter().try_for_each(Compared::check));
    match (changed.get(), outcome) {
        (0, _) => Err("the change did not apply to any kernel".to_owned()),
        (_, Ok(())) => Err("the mutant passed".to_owned()),
        (_, Err(_)) => Ok(()),
    }
}

/// Whether the text is a product of a packed weight with a second product: those use the constant 273.
fn is_packed(text: &str) -> bool {
    text.contains(" = 273;")
}

fn every(text: &str, from: &str, to: &str) -> Option<String> {
    text.contains(from).then(|| text.replace(from, to))
}

/// Changes the first occurrence in a product.
fn once_in_product(text: &str, from: &str, to: &str) -> Option<String> {
    text.contains("nvcuda::wmma").then(|| nth(text, from, to, 0)).flatten()
}

/// Changes the first occurrence in the softmax of the loss, the one kernel of three numbers that shuffles.
fn of_softmax(text: &str, from: &str, to: &str) -> Option<String> {
    (text.contains("scalars_u32[2];") && text.contains("__shfl")).then(|| nth(text, from, to, 0)).flatten()
}

/// Replaces one occurrence.
fn nth(text: &str, from: &str, to: &str, number: usize) -> Option<String> {
    let (at, found) = text.match_indices(from).nth(number)?;
    Some(format!("{}{to}{}", &text[..at], &text[at + found.len()..]))
}

/// Replaces after a marker, in kernels of packed weights.
fn once(text: &str, marker: &str, from: &str, to: &str) -> Option<String> {
    let at = text.find(marker)?;
    let (head, tail) = text.split_at(at);
    (is_packed(text) && tail.contains(from)).then(|| format!("{head}{}", tail.replacen(from, to, 1)))
}

/// Changes every constant of a value.
fn constant(text: &str, from: u32, to: u32) -> Option<String> {
    every(text, &format!(" = {from};"), &format!(" = {to};")).filter(|_| is_packed(text))
}

/// Changes shifts by a constant: its name is that of its first definition.
fn shift_by_constant(text: &str, from: u32, to: u32) -> Option<String> {
    let definition = format!(" = {from};");
    let name = text[..text.find(&definition)?].rsplit(' ').next()?;
    every(text, &format!(">> {name};"), &format!(">> {to};")).filter(|_| is_packed(text))
}

/// Leaves out one barrier.
fn barrier(text: &str, number: usize) -> Option<String> {
    let (at, found) = text.match_indices("__syncthreads();").nth(number)?;
    is_packed(text).then(|| format!("{}{}", &text[..at], &text[at + found.len()..]))
}

/// Leaves out one barrier of a kernel that reads in transposed fragments: those of attention.
fn drop_barrier(text: &str, number: usize) -> Option<String> {
    text.contains("x4.trans.").then(|| nth(text, "__syncthreads();", "", number)).flatten()
}

/// Stores every element, inside the output or not.
fn guards(text: &str) -> Option<String> {
    every(text, " && ", " || ")
}
