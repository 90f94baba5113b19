//! The `seedcorn` command, built with this package so that its tests can start it.
//!
//! Cargo builds the binary of another package only when asked to.

use std::process::ExitCode;

fn main() -> ExitCode {
    seedcorn::cli::run()
}
