//! Training again, from the lock alone, and comparing what comes out.

use std::io;
use std::path::Path;
use std::time::Duration;

use seedcorn_adapters::Adapter;
use seedcorn_kernels::device::{self, DeviceChoice};

use super::inputs::{differing, with_causes};
use super::report::Report;
use crate::build::{Prepared, precision};
use crate::evaluate::Evaluation;
use crate::evidence::lock::{self, EarlyStep, Lock, Results};
use crate::evidence::outputs::LOCK;
use crate::log::Verbosity;
use crate::models::Models;
use crate::parallel::{Mesh, World};
use crate::progress::{Observer, Progress, StepRecord};
use crate::recipe::{Compute, RankCount};
use crate::run::{self, optimizer, settings};
use crate::stop::Stop;
use crate::train::{Run, Settings, train};

/// How much longer than expected a thread may take.
const SLOWEST: Duration = Duration::from_mins(1);

/// How far another device class may be off, relative to the value in the lock.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tolerance {
    loss: f64,
    grad_norm: f64,
}

impl Tolerance {
    /// Sums in another order move the last bits of f32; rounding to bf16 moves more.
    fn of(compute: Compute) -> Self {
        match compute {
            Compute::F32 => Self { loss: 1e-4, grad_norm: 1e-3 },
            Compute::Bf16 => Self { loss: 1e-2, grad_norm: 5e-2 },
        }
    }
}

/// Keeps what a rerun reports.
#[derive(Default)]
struct Recorder(Vec<EarlyStep>);

impl Observer for Recorder {
    fn step(&mut self, record: &StepRecord, adapter: &Adapter) -> io::Result<()> {
        let StepRecord { step, loss, grad_norm, .. } = *record;
        self.0.push(EarlyStep { step, loss, grad_norm, adapter_sha256: adapter.digest() });
        Ok(())
    }

    fn evaluation(&mut self, _: u64, _: &Evaluation) -> io::Result<()> {
        Ok(())
    }

    fn before_checkpoint(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Trains the first `steps` steps again.
pub(super) fn first_steps(lock: &Lock, prepared: &Prepared, steps: u64, report: &mut Report) {
    let known = lock.results.as_ref().map_or(&[][..], |results| &results.early);
    let claimed: Vec<&EarlyStep> = known.iter().filter(|early| early.step <= steps).collect();
    if claimed.is_empty() {
        return report.failed("steps", "the lock holds no step to compare with");
    }
    let tensor = lock.results.as_ref().map_or(1, |results| results.mesh.tensor);
    match train_again(prepared, tensor, claimed.len() as u64) {
        Ok(found) => compare_steps(lock, &claimed, &found, report),
        Err(error) => report.failed("steps", with_causes(&error)),
    }
}

/// Trains with one rank a slice, as threads: how the model is cut decides bits, and no other number of ranks does.
fn train_again(prepared: &Prepared, tensor: usize, steps: u64) -> anyhow::Result<Vec<EarlyStep>> {
    // Nothing is written unless a batch breaks the run.
    let scratch = tempfile::tempdir()?;
    let device = device::open(prepared.recipe.device)?;
    let precision = precision(&prepared.recipe.model);
    prepared.base.check(precision, tensor)?;
    let world = World::Threads { mesh: Mesh { data: 1, tensor }, timeout: SLOWEST };
    let models = Models::load(prepared, &world, &device)?;
    let stop = Stop::default();
    let steps = world.run(|ranks| {
        let adapter = Adapter::new(prepared.weights.clone(), &device);
        let mut recorder = Recorder::default();
        train(Run {
            ranks,
            stop: &stop,
            model: models.of(ranks),
            optimizer: optimizer(prepared, &adapter),
            adapter,
            stream: prepared.order.clone(),
            eval: &[],
            schedule: prepared.schedule,
            checkpoints: None,
            observer: &mut recorder,
            progress: Progress::default(),
            settings: Settings { steps, output: scratch.path().to_owned(), ..settings(prepared) },
        })?;
        Ok(recorder.0)
    })?;
    Ok(steps)
}

/// Trains the whole run again in `folder`, and compares its results.
pub(super) fn whole(lock: &Lock, mut prepared: Prepared, folder: &Path, report: &mut Report) {
    const NAME: &str = "full";
    let Some(claimed) = &lock.results else {
        return report.failed(NAME, "the lock has no results to compare with");
    };
    let tensor = claimed.mesh.tensor;
    if let Err(error) = prepared.base.check(precision(&prepared.recipe.model), tensor) {
        return report.failed(NAME, with_causes(&error.into()));
    }
    folder.clone_into(&mut prepared.recipe.output);
    // The bits are those of any number of ranks that share the data.
    prepared.recipe.parallel.data = RankCount::Exactly(1);
    prepared.recipe.parallel.tensor = tensor as u64;
    let found = run::run(&prepared, false, Verbosity::Quiet, &Stop::default())
        .and_then(|finished| Ok(Lock::read(&finished.adapter.join(LOCK))?));
    let found = match found.map(|lock| lock.results) {
        Ok(Some(found)) => found,
        Ok(None) => return report.failed(NAME, "the new run has no results"),
        Err(error) => return report.failed(NAME, with_causes(&error)),
    };
    compare_steps(lock, &claimed.early.iter().collect::<Vec<_>>(), &found.early, report);
    let faults = if is_exact(lock) { same_bits(claimed, &found) } else { close(lock, claimed, &found) };
    report.faults(NAME, faults, || {
        format!("{} steps, adapter {}: {}", found.steps, &found.adapter_sha256[..12], how(lock))
    });
}

/// Compares steps: bits on the device class of the lock, by tolerance on another.
fn compare_steps(lock: &Lock, claimed: &[&EarlyStep], found: &[EarlyStep], report: &mut Report) {
    let (exact, tolerance) = (is_exact(lock), tolerance(lock));
    let mut faults = Vec::new();
    for (index, claimed) in claimed.iter().enumerate() {
        let Some(found) = found.get(index).filter(|found| found.step == claimed.step) else {
            faults.push(format!("step {} was not reached", claimed.step));
            continue;
        };
        let step = claimed.step;
        let values = [
            ("loss", claimed.loss, found.loss, tolerance.loss),
            ("gradient norm", claimed.grad_norm, found.grad_norm, tolerance.grad_norm),
        ];
        for (what, claimed, found, tolerance) in values {
            let near = if exact {
                claimed.to_bits() == found.to_bits()
            } else {
                is_close(claimed, found, tolerance)
            };
            if !near {
                faults.push(format!("step {step}: {what} is {found}, the lock says {claimed}"));
            }
        }
        if exact && claimed.adapter_sha256 != found.adapter_sha256 {
            let (is, was) = (&found.adapter_sha256, &claimed.adapter_sha256);
            faults.push(format!("step {step}: the adapter has digest {is}, the lock says {was}"));
        }
    }
    if !faults.is_empty() && exact && lock.tool != lock::Tool::this() {
        faults.push(other_build(lock));
    }
    let steps = claimed.len();
    report
        .faults("steps", faults, || format!("1 to {steps}, loss, gradient norm and adapter: {}", how(lock)));
}

/// What differs between two results of one device class.
fn same_bits(claimed: &Results, found: &Results) -> Vec<String> {
    let strip = |results: &Results| {
        // Ranks share out the work and change no bit; early steps are compared by themselves.
        let mesh = lock::MeshResult { data: 1, ..results.mesh };
        let results = Results { files: Vec::new(), early: Vec::new(), mesh, ..results.clone() };
        toml::to_string(&results).expect("plain values")
    };
    differing(&strip(claimed), &strip(found))
}

/// What is further off than another device class explains. The whole run adds up what each step moves.
fn close(lock: &Lock, claimed: &Results, found: &Results) -> Vec<String> {
    let tolerance = 10.0 * tolerance(lock).loss;
    let pairs = [
        ("final_loss", claimed.final_loss, found.final_loss),
        ("eval_loss_before", claimed.eval_loss_before, found.eval_loss_before),
        ("eval_loss_after", claimed.eval_loss_after, found.eval_loss_after),
    ];
    let far = |claimed: Option<f64>, found: Option<f64>| match (claimed, found) {
        (Some(claimed), Some(found)) => !is_close(claimed, found, tolerance),
        (claimed, found) => claimed != found,
    };
    let far = pairs.into_iter().filter(|(_, claimed, found)| far(*claimed, *found));
    far.map(|(key, claimed, found)| format!("`{key}` is {found:?}, the lock says {claimed:?}")).collect()
}

fn is_close(claimed: f64, found: f64, tolerance: f64) -> bool {
    (claimed - found).abs() <= tolerance * claimed.abs()
}

fn same_class(lock: &Lock) -> bool {
    lock.device == here(lock)
}

/// Where the run of a lock computes in this process.
fn here(lock: &Lock) -> lock::Device {
    let typed = lock.recipe.get("device").and_then(toml::Value::as_str);
    lock::Device::of(typed.and_then(|text| text.parse().ok()).unwrap_or(DeviceChoice::Cpu))
}

/// Whether one rank here must come to the bits of the lock.
fn is_exact(lock: &Lock) -> bool {
    same_class(lock) && !is_fast(lock)
}

/// Whether gradients were added in an order that depends on the ranks.
fn is_fast(lock: &Lock) -> bool {
    let parallel = lock.recipe.get("parallel");
    parallel.and_then(|parallel| parallel.get("reduction")).and_then(toml::Value::as_str) == Some("fast")
}

fn compute(lock: &Lock) -> Compute {
    let compute =
        lock.recipe.get("model").and_then(|model| model.get("compute")).and_then(toml::Value::as_str);
    if compute == Some("bf16") { Compute::Bf16 } else { Compute::F32 }
}

fn tolerance(lock: &Lock) -> Tolerance {
    Tolerance::of(compute(lock))
}

/// How a result was compared.
fn how(lock: &Lock) -> String {
    let (claimed, here) = (&lock.device, here(lock));
    if is_exact(lock) {
        return format!("same bits ({} {})", here.class, here.isa);
    }
    let Tolerance { loss, grad_norm } = tolerance(lock);
    if same_class(lock) {
        return format!(
            "losses within {loss:e} and norms within {grad_norm:e} (the lock's ranks added gradients with \
             `parallel.reduction` = \"fast\")"
        );
    }
    format!(
        "losses within {loss:e} and norms within {grad_norm:e} (the lock is of {} {}, this is {} {})",
        claimed.class, claimed.isa, here.class, here.isa
    )
}

/// Tells that another build may be the reason.
fn other_build(lock: &Lock) -> String {
    let name = |tool: &lock::Tool| {
        let commit = tool.commit.as_deref().unwrap_or("unknown");
        format!("{} ({}, commit {commit})", tool.version, tool.profile)
    };
    format!("the lock is of another build: {}, this is {}", name(&lock.tool), name(&lock::Tool::this()))
}
