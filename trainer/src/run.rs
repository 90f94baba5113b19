//! One training run, from prepared inputs to an exported adapter that was loaded back and compared.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use seedcorn_adapters::peft::{self, PeftConfig};
use seedcorn_adapters::{Adapter, AdapterError};
use seedcorn_data::{MicroBatch, Sample};
use seedcorn_kernels::adamw::AdamW;
use seedcorn_kernels::device::{self, DeviceChoice};

use crate::build::{Prepared, precision};
use crate::checkpoint::{Output, Store};
use crate::error::Explained;
use crate::evaluate::Evaluation;
use crate::evidence::{EarlyStep, Lock, MeshResult, Results, describe, outputs};
use crate::export::ExportDtype;
use crate::export::folder::DEFAULT_SHARD_BYTES;
use crate::log::{Rows, RunLog, Verbosity};
use crate::merge::{Merge, Merged, RoundTrip, Target};
use crate::model::Input;
use crate::models::Models;
use crate::optimizer::Optimizer;
use crate::parallel::{Mesh, World};
use crate::progress::{Observer, Progress, Silent};
use crate::provenance::{beside_adapter, beside_merged};
use crate::recipe;
use crate::report::{self, FactsFile};
use crate::sample::{Question, Shown};
use crate::snapshot::{self, Checkpoints};
use crate::stop::Stop;
use crate::train::{Run, Settings, Trained, train};

/// Tokens of the sample on which a written adapter is compared with the one in memory.
const PROBE_TOKENS: usize = 64;

/// What a finished run has to show.
#[derive(Debug)]
pub struct Finished {
    /// The PEFT folder.
    pub adapter: PathBuf,
    /// The page that shows the run.
    pub report: PathBuf,
    /// The merged model, where the recipe wants one.
    pub merged: Option<Merged>,
    /// Held-out loss before step 1, unless the run was resumed.
    pub first_eval: Option<Evaluation>,
    /// Held-out loss at the end.
    pub last_eval: Option<Evaluation>,
    /// One held-out question, its answer in the data, and the model's before and after.
    pub shown: Option<[Shown; 2]>,
    /// Steps of the whole run.
    pub steps: u64,
    /// The trained adapter.
    pub trained: Adapter,
}

/// Trains what was prepared in the recipe's output folder, with all ranks in this process.
///
/// # Errors
/// Whatever stops a run; states saved before it stay.
pub fn run(prepared: &Prepared, resume: bool, verbosity: Verbosity, stop: &Stop) -> anyhow::Result<Finished> {
    let world = World::here(&prepared.recipe.parallel);
    run_in(&world, prepared, resume, verbosity, stop).map(|finished| finished.expect("rank 0 is here"))
}

/// As [`run`], with the ranks of `world`. Only the process of rank 0 writes, talks, and has something to show.
///
/// # Errors
/// As there.
pub fn run_in(
    world: &World,
    prepared: &Prepared,
    resume: bool,
    verbosity: Verbosity,
    stop: &Stop,
) -> anyhow::Result<Option<Finished>> {
    let recipe = &prepared.recipe;
    one_rank_a_device(recipe, world.mesh().ranks())?;
    let mut lock = describe(prepared)?;
    // How the model is cut decides bits, though a run may go on with another cut.
    world.compare_inputs(&format!("parallel.tensor = {}\n{}", recipe.parallel.tensor, lock.inputs()))?;
    let output = world.leads().then(|| Output::take(&recipe.output, resume)).transpose()?;
    let folder = output.as_ref().map(Output::folder);
    let checkpoints =
        folder.zip(recipe.checkpoint.keep).map(|(folder, keep)| -> anyhow::Result<Checkpoints> {
            Ok(Checkpoints {
                store: Store::open(folder, keep)?,
                recipe: recipe.canonical_toml(),
                recipe_digest: recipe.digest(),
                lock_digest: lock.input_digest(),
            })
        });
    let checkpoints = checkpoints.transpose()?;

    let device = device::open(recipe.device)?;
    let mut adapter = Adapter::new(prepared.weights.clone(), &device);
    let mut optimizer = optimizer(prepared, &adapter);
    let mut stream = prepared.order.clone();
    let mut progress = Progress::default();
    let mut warnings = Vec::new();
    if let (true, Some(checkpoints)) = (resume, &checkpoints) {
        let warn = |broken: &crate::checkpoint::Broken| {
            warnings.push(format!("skipped `{}`: {}", broken.folder.display(), broken.fault));
        };
        let found = checkpoints.store.resume(&checkpoints.recipe, &checkpoints.lock_digest, warn)?;
        if let Some(found) = found {
            progress = snapshot::restore(&found, &mut adapter, &mut optimizer)?;
            stream.seek(progress.cursor)?;
        }
    }
    if resume {
        let state = || match progress.step {
            0 => Vec::new(),
            _ => snapshot::pack(&progress, &adapter, &optimizer),
        };
        if let Some(state) = world.hand_out("resume", state)? {
            progress = snapshot::unpack(&state, &mut adapter, &mut optimizer)?;
            stream.seek(progress.cursor)?;
        }
    }
    // The folder shows no trace of a run until the weights are in: a run that cannot start leaves it free.
    let started = Instant::now();
    let models = Models::load(prepared, world, &device)?;
    let open = |folder| RunLog::open(folder, &progress, prepared.steps, verbosity);
    let mut log = folder.map(open).transpose()?;
    let mut facts = None;
    if let (Some(folder), Some(log)) = (folder, &mut log) {
        for warning in &warnings {
            log.shown().warn(warning);
        }
        log.shown().detail(&format!("read the weights in {:.2} s", started.elapsed().as_secs_f64()));
        if progress.step > 0 {
            log.shown().note(&format!("continuing after step {} of {}", progress.step, prepared.steps));
        }
        lock.write(&folder.join(outputs::LOCK))?;
        if recipe.log.tensorboard {
            log.tensorboard(folder, progress.step)?;
        }
        facts = Some(FactsFile::open(folder, prepared, progress.step)?);
    }
    let before = answer(prepared, world, &models, &adapter)?;
    if let Some(file) = &mut facts {
        file.answer(progress.step, before.as_ref())?;
    }
    world.meet("start")?;
    let mut settings = settings(prepared);
    if world.mesh().tensor > 1 {
        // What is kept decides how often slices are added up, and machines may differ in what they have room for.
        settings.kept_blocks = world.least("kept", settings.kept_blocks)?;
    }
    let outlets = Mutex::new(log.as_mut().map(|log| (checkpoints, log)));
    // A rank that is alone takes the state; several take copies.
    let state = Mutex::new(Some((adapter, optimizer)));
    let trained = world.run(|ranks| {
        let (adapter, optimizer) = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = if ranks.size() == 1 { state.take() } else { state.clone() };
            taken.expect("taken once")
        };
        let outlets = ranks.leads().then(|| outlets.lock().ok()?.take()).flatten();
        let (checkpoints, log) = outlets.map_or((None, None), |(checkpoints, log)| (checkpoints, Some(log)));
        let mut silent = Silent;
        train(Run {
            ranks,
            stop,
            model: models.of(ranks),
            adapter,
            optimizer,
            stream: stream.clone(),
            eval: prepared.dataset.eval(),
            schedule: prepared.schedule,
            checkpoints,
            observer: log.map_or(&mut silent, |log| log as &mut dyn Observer),
            progress: progress.clone(),
            settings: settings.clone(),
        })
    });
    if let Some(log) = &log {
        log.shown().finish();
    }
    let Trained { adapter, first_eval, last_eval, progress, traffic } = trained?;
    if let Some(log) = log.filter(|_| traffic.gradient_bytes > 0) {
        log.shown().detail(&traffic.line());
    }
    let after = answer(prepared, world, &models, &adapter)?;
    let written =
        folder.map(|folder| export(prepared, &adapter, &folder.join("adapter"), &device)).transpose()?;
    let written = read_everywhere(world, &adapter, written)?;
    let same = same_logits(prepared, world, &models, [&adapter, &written])?;
    let (Some(folder), Some(mut facts)) = (folder, facts) else { return Ok(None) };
    facts.answer(progress.step, after.as_ref())?;
    let path = folder.join("adapter");
    if !same {
        return Err(other_logits(&path));
    }
    let merged = merged(prepared, &adapter, &folder.join("merged"))?;
    lock.results = Some(results(&adapter, folder, &progress, world.mesh())?);
    beside_adapter(&path, &lock, &prepared.base.config)?;
    if let Some(merged) = &merged {
        beside_merged(&merged.path, &path, &lock, &prepared.base.config)?;
    }
    // The page shows the hashes of all files but its own; checkpoints are large, so all but the page are hashed once.
    list_files(&mut lock, folder, |name| name != report::FILE)?;
    lock.write(&folder.join(outputs::LOCK))?;
    let report = report::write(folder)?;
    list_files(&mut lock, folder, |name| name == report::FILE)?;
    for place in outputs::EXPORTS.map(|export| folder.join(export)).iter().filter(|place| place.exists()) {
        lock.write(&place.join(outputs::LOCK))?;
    }
    lock.write(&folder.join(outputs::LOCK))?;
    let shown = before.zip(after).map(|(before, after)| [before, after]);
    let steps = progress.step;
    let trained = adapter;
    Ok(Some(Finished { adapter: path, report, merged, first_eval, last_eval, shown, steps, trained }))
}

/// Refuses several ranks on a device: each would keep a queue and memory of its own there.
pub(crate) fn one_rank_a_device(recipe: &recipe::Recipe, ranks: usize) -> anyhow::Result<()> {
    if recipe.device == DeviceChoice::Cpu || ranks == 1 {
        return Ok(());
    }
    let problem = format!("`device` is `{}`, and the run has {ranks} ranks", recipe.device);
    Err(Explained::usage(problem).with_hint("use one rank, or `device = \"cpu\"`").into())
}

/// Hashes what lies in the run's folder under names that pass, and adds it to the lock.
fn list_files(lock: &mut Lock, folder: &Path, pass: impl Fn(&str) -> bool) -> std::io::Result<()> {
    let Some(results) = &mut lock.results else { return Ok(()) };
    let names = outputs::names(folder)?.into_iter().filter(|name| pass(name)).collect();
    results.files.extend(outputs::hashed(folder, names)?);
    results.files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(())
}

/// The update rule of a recipe, with fresh moments.
pub(crate) fn optimizer(prepared: &Prepared, adapter: &Adapter) -> Optimizer {
    let cfg = &prepared.recipe.optimizer;
    let [beta1, beta2] = cfg.betas;
    let adamw = AdamW { beta1, beta2, eps: cfg.eps, weight_decay: cfg.weight_decay };
    Optimizer::new(adamw, prepared.recipe.train.max_grad_norm, adapter)
}

/// The numbers that the loop reads.
pub(crate) fn settings(prepared: &Prepared) -> Settings {
    let recipe = &prepared.recipe;
    let eval = recipe.eval.as_ref();
    Settings {
        steps: prepared.steps,
        seed: recipe.train.seed,
        dropout: recipe.adapter.dropout as f32,
        kept_blocks: prepared.memory.kept_blocks,
        reduction: recipe.parallel.reduction,
        eval_micro_batch: recipe.train.micro_batch as usize,
        eval_every: eval.map_or(0, |eval| eval.every_steps),
        eval_max_samples: eval.and_then(|eval| eval.max_samples).map(|samples| samples as usize),
        save_every: recipe.checkpoint.every_steps,
        output: recipe.output.clone(),
    }
}

/// Lets the model answer the first held-out question, where the recipe wants to see one.
fn answer(
    prepared: &Prepared,
    world: &World,
    models: &Models,
    adapter: &Adapter,
) -> anyhow::Result<Option<Shown>> {
    let sample = prepared.dataset.eval().first().and_then(|source| source.samples.first());
    let question = sample.filter(|_| prepared.recipe.log.sample).and_then(Question::new);
    let (Some(question), Some(tokenizer)) = (question, &prepared.base.tokenizer) else { return Ok(None) };
    let stop = prepared.base.stop_ids();
    let generated = models.ask(world, |model| Ok(question.ask(model, adapter, &stop)?))?;
    generated.map(|generated| question.shown(&generated, tokenizer)).transpose()
}

/// Writes the PEFT folder and reads it back.
fn export(prepared: &Prepared, adapter: &Adapter, path: &Path, device: &Device) -> anyhow::Result<Adapter> {
    let modules = prepared.base.linear_modules();
    let config = PeftConfig {
        lora: prepared.lora.clone(),
        base_model: Some(prepared.recipe.model.source.typed().to_owned()),
        revision: None,
    };
    peft::write(path, &config, &adapter.weights(), &modules).map_err(|error| {
        let hint = match prepared.recipe.checkpoint.keep {
            Some(_) => "the last checkpoint is intact; free some space, then continue with `--resume`",
            None => {
                "no checkpoint was kept (`checkpoint.every_steps = 0`); free some space, then start again"
            }
        };
        Explained::new(format!("could not write the adapter `{}`", path.display()))
            .with_hint(hint)
            .caused_by(error)
    })?;
    let read: Result<_, AdapterError> = peft::read(path, &modules);
    Ok(Adapter::new(read?.weights, device))
}

/// Hands the adapter that was read back to the processes that compute logits with the one that wrote it.
fn read_everywhere(world: &World, adapter: &Adapter, read: Option<Adapter>) -> anyhow::Result<Adapter> {
    let values = || match &read {
        Some(read) if world.mesh().tensor > 1 => bytemuck::cast_slice(&read.values().concat()).to_vec(),
        _ => Vec::new(),
    };
    if let Some(bytes) = world.hand_out("export", values)? {
        let mut values = bytes.as_chunks::<4>().0.iter().map(|value| f32::from_ne_bytes(*value));
        let mut other = adapter.clone();
        let lengths = adapter.lengths().into_iter();
        other.set_values(lengths.map(|length| values.by_ref().take(length).collect()).collect());
        return Ok(other);
    }
    Ok(read.unwrap_or_else(|| adapter.clone()))
}

/// Compares the logits of a sample through two adapters, which must agree to the bit.
fn same_logits(
    prepared: &Prepared,
    world: &World,
    models: &Models,
    adapters: [&Adapter; 2],
) -> anyhow::Result<bool> {
    let probe = Input::from(&probe(prepared));
    let same = models.ask(world, |model| {
        let [one, other] = adapters.map(|adapter| model.logits(&probe, Some(adapter)).map(bits));
        Ok(one? == other?)
    })?;
    Ok(same.unwrap_or(true))
}

fn other_logits(path: &Path) -> anyhow::Error {
    Explained::new(format!("the adapter in `{}` reads back with other logits", path.display()))
        .with_hint("this is a bug or a failing disk; the last checkpoint is intact")
        .into()
}

/// Merges the adapter into the full weights, where the recipe wants it. What the quantized weights of training
/// would have given is measured.
fn merged(prepared: &Prepared, adapter: &Adapter, path: &Path) -> anyhow::Result<Option<Merged>> {
    let dtype = match prepared.recipe.export.merged {
        recipe::Merged::None => return Ok(None),
        recipe::Merged::Bf16 => ExportDtype::Bf16,
        recipe::Merged::F32 => ExportDtype::F32,
    };
    let trained_on = precision(&prepared.recipe.model);
    let merge = Merge {
        base: &prepared.base,
        adapter: &adapter.weights(),
        path,
        dtype,
        target: Target::Full,
        round_trip: RoundTrip { quantize: trained_on.quantize, double_quant: trained_on.double_quant },
        shard_bytes: DEFAULT_SHARD_BYTES,
    };
    merge.run().map(Some)
}

fn probe(prepared: &Prepared) -> MicroBatch {
    let sample = &prepared.dataset.samples()[0];
    let tokens = sample.tokens().min(PROBE_TOKENS);
    let head = Sample {
        input_ids: sample.input_ids[..tokens].to_vec(),
        labels: sample.labels[..tokens].to_vec(),
        ..Sample::default()
    };
    MicroBatch::from_samples(0, &[&head])
}

fn bits(logits: Tensor<2>) -> Vec<u8> {
    logits.into_data().bytes().to_vec()
}

/// What came out, as the run's folder shows it: the same after an interruption. Its files are hashed once all are
/// there.
fn results(adapter: &Adapter, folder: &Path, progress: &Progress, mesh: Mesh) -> anyhow::Result<Results> {
    let Rows { steps, evals, .. } = Rows::read(&folder.join("metrics.jsonl"))?;
    let early = steps.iter().filter_map(|row| {
        let adapter_sha256 = row.adapter_sha256.clone()?;
        Some(EarlyStep { step: row.step, loss: row.loss, grad_norm: row.grad_norm, adapter_sha256 })
    });
    let eval_after = |step: u64| evals.iter().find(|row| row.step == step).map(|row| row.loss);
    Ok(Results {
        steps: progress.step,
        trained_tokens: progress.trained_tokens,
        final_loss: steps.last().map(|row| row.loss),
        eval_loss_before: eval_after(0),
        eval_loss_after: eval_after(progress.step),
        adapter_sha256: adapter.digest(),
        early: early.collect(),
        mesh: MeshResult { data: mesh.data, tensor: mesh.tensor },
        files: Vec::new(),
    })
}
