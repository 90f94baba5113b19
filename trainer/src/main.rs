//! The `seedcorn` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    seedcorn::cli::run()
}
