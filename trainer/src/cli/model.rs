//! What the verbs that read a model share: the base, its precision, its adapter.

use std::path::Path;

use anyhow::Context;
use seedcorn_adapters::{Adapter, peft};
use seedcorn_kernels::device;

use super::args::{self, Global};
use crate::base::{self, Base};
use crate::build::compute;
use crate::model::{Decoder, Precision};

/// A loaded model with its adapter, if one was given.
pub(super) struct Loaded {
    pub(super) base: Base,
    pub(super) decoder: Decoder,
    pub(super) adapter: Option<Adapter>,
}

/// Loads what `MODEL`, `--adapter` and `--quantize` name.
pub(super) fn load(args: &args::Model, global: &Global) -> anyhow::Result<Loaded> {
    let base = base::open(&args.model, Path::new(""), &super::resolver(global))?;
    let compute = compute(args.compute);
    let precision = Precision { quantize: args.quantize, double_quant: true, compute };
    let device = device::open(args.device)?;
    let adapter = match &args.adapter {
        Some(folder) => {
            let read = peft::read(folder, &base.linear_modules());
            let read = read.with_context(|| format!("could not use the adapter `{}`", folder.display()))?;
            Some(Adapter::new(read.weights, &device))
        }
        None => None,
    };
    let decoder = base.load(precision, &device)?;
    Ok(Loaded { base, decoder, adapter })
}
