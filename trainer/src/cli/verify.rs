//! `seedcorn verify`: whether a run is what its lock says.

use std::process::ExitCode;

use seedcorn_kernels::isa::{self, Tier};

use super::args::{self, Global};
use crate::evidence::Lock;
use crate::evidence::signing::PublicKey;
use crate::evidence::verify::{Check, Options, Subject, Verdict, verify};
use crate::log::{Verbosity, data_line};

/// Runs on the instruction tier of the lock where this processor has it, so that bits can be compared.
pub(super) fn prefer_tier(args: &args::Verify) {
    let lock = Subject::find(&args.subject).ok().and_then(|subject| subject.lock);
    let Some(lock) = lock.and_then(|path| Lock::read(&path).ok()) else { return };
    if let Some(tier) = Tier::ALL.into_iter().find(|tier| tier.name() == lock.device.isa) {
        isa::prefer(tier);
    }
}

pub(super) fn run(args: &args::Verify, global: &Global) -> anyhow::Result<ExitCode> {
    let subject = Subject::find(&args.subject)?;
    let options = Options {
        files_only: args.files_only,
        steps: args.steps,
        full: args.full,
        key: args.key.as_deref().map(PublicKey::read).transpose()?,
        signature: args.signature.clone(),
        from: args.from.clone(),
        out: args.out.clone(),
    };
    let quiet = global.verbosity() == Verbosity::Quiet || args.json;
    let mut told = Ok(());
    let mut tell = |check: &Check| {
        if !quiet && told.is_ok() {
            told = data_line(&check.line());
        }
    };
    let verdict = verify(&subject, &options, &super::resolver(global), &mut tell)?;
    told?;
    if args.json {
        data_line(&serde_json::to_string_pretty(&verdict)?)?;
    } else {
        data_line(&summary(&verdict))?;
    }
    Ok(if verdict.verified { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The verdict in a line.
fn summary(verdict: &Verdict) -> String {
    let Verdict { verified, failed, passed, skipped, .. } = verdict;
    let made = if *verified {
        format!("verified: {passed} passed")
    } else {
        format!("NOT verified: {failed} failed, {passed} passed")
    };
    if *skipped > 0 { format!("{made}, {skipped} not made") } else { made }
}
