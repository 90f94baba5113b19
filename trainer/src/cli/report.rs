//! `seedcorn report`: the page of a run, from what lies in its folder.

use super::args::{self, Global};
use crate::log::{Verbosity, data_line};
use crate::report;

pub(super) fn run(args: &args::Report, global: &Global) -> anyhow::Result<()> {
    let path = report::write(&args.run)?;
    if global.verbosity() != Verbosity::Quiet {
        data_line(&format!("report: {}", path.display()))?;
    }
    Ok(())
}
