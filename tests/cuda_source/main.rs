//! The CUDA kernels, compiled by NVIDIA's compiler and run in the interpreter of `ptx/`: no GPU is needed.
//!
//! Without the compilers every test is ignored, and says why.

mod attention;
mod interpreter;
mod linear;
mod loss;
mod mutants;
mod numbers;
mod toolkit;

use std::path::Path;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test that is given the compilers.
type Test = Box<dyn FnOnce(&Path) -> Result<(), String> + Send>;

fn main() {
    let arguments = Arguments::from_args();
    let toolkit = toolkit::find();
    let mut trials = Vec::new();
    let mut add = |name: String, test: Test| {
        let toolkit = toolkit.clone();
        let (kind, ignored) = match &toolkit {
            Ok(_) => (String::new(), false),
            Err(reason) => (format!("skipped, {reason}"), true),
        };
        let run = move || test(&toolkit.map_err(Failed::from)?).map_err(Failed::from);
        trials.push(Trial::test(name, run).with_kind(kind).with_ignored_flag(ignored));
    };
    for (name, multiprocessors, case) in linear::cases() {
        add(
            format!("linear::{name}"),
            Box::new(move |toolkit| linear::check(toolkit, multiprocessors, case)),
        );
    }
    for (name, case) in attention::cases() {
        add(format!("attention::{name}"), Box::new(move |toolkit| attention::check(toolkit, case)));
    }
    for (name, case) in loss::cases() {
        add(format!("loss::{name}"), Box::new(move |toolkit| loss::check(toolkit, case)));
    }
    for (name, op, change) in mutants::mutants() {
        add(format!("mutants::{name}"), Box::new(move |toolkit| mutants::check(toolkit, &*op, change)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}
