//! `seedcorn merge`: one model of an adapter and its base.

use std::path::Path;

use anyhow::Context;
use seedcorn_adapters::peft;

use super::args::{self, Global};
use crate::base;
use crate::export::ExportDtype;
use crate::log::{Verbosity, data_line};
use crate::merge::{Merge, RoundTrip, Target};
use crate::provenance::beside_merged_of;

pub(super) fn run(args: &args::Merge, global: &Global) -> anyhow::Result<()> {
    let resolver = super::resolver(global);
    let base = base::open(&args.base, Path::new(""), &resolver)?;
    let adapter = peft::read(&args.adapter, &base.linear_modules())
        .with_context(|| format!("could not use the adapter `{}`", args.adapter.display()))?;
    let merge = Merge {
        base: &base,
        adapter: &adapter.weights,
        path: &args.out,
        dtype: match args.dtype {
            args::Dtype::Bf16 => ExportDtype::Bf16,
            args::Dtype::F32 => ExportDtype::F32,
        },
        target: match args.into {
            args::Into::Full => Target::Full,
            args::Into::Dequantized => Target::Dequantized,
        },
        round_trip: RoundTrip::QLORA,
        shard_bytes: args.max_shard_size,
    };
    let merged = merge.run()?;
    beside_merged_of(&args.out, &base, &args.adapter, &resolver)?;
    if global.verbosity() != Verbosity::Quiet {
        for line in merged.lines() {
            data_line(&line)?;
        }
        data_line(&format!("next: seedcorn generate {} --prompt 'Hello'", args.out.display()))?;
    }
    Ok(())
}
