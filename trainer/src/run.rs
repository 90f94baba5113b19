//! One training run, from prepared inputs to an exported adapter that was loaded back and compared.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use seedcorn_adapters::peft::{self, PeftConfig};
use seedcorn_adapters::{Adapter, AdapterError};
use seedcorn_data::{MicroBatch, Sample};
use seedcorn_kernels::adamw::AdamW;

use crate::build::{Prepared, precision};
use crate::checkpoint::{Output, Store};
use crate::error::Explained;
use crate::evaluate::Evaluation;
use crate::evidence::{AdapterResult, EarlyStep, File, Results, describe};
use crate::export::ExportDtype;
use crate::export::folder::DEFAULT_SHARD_BYTES;
use crate::log::{RunLog, Verbosity, read_steps};
use crate::merge::{Merge, Merged, RoundTrip, Target};
use crate::model::{Decoder, Input};
use crate::optimizer::Optimizer;
use crate::progress::Progress;
use crate::recipe::{self, sha256_hex};
use crate::report::{self, FactsFile};
use crate::sample::{Shown, show};
use crate::snapshot::{self, Checkpoints};
use crate::train::{Run, Settings, Trained, train};

/// Steps whose exact loss and gradient norm go into the lock.
const EARLY_STEPS: u64 = 5;
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
    /// The trained model, for further exports.
    pub decoder: Decoder,
    /// The trained adapter.
    pub trained: Adapter,
}

/// Trains what was prepared in the recipe's output folder.
///
/// # Errors
/// Whatever stops a run; states saved before it stay.
pub fn run(prepared: &Prepared, resume: bool, verbosity: Verbosity) -> anyhow::Result<Finished> {
    let recipe = &prepared.recipe;
    let mut lock = describe(prepared)?;
    let output = Output::take(&recipe.output, resume)?;
    let folder = output.folder();
    let checkpoints = recipe.checkpoint.keep.map(|keep| -> anyhow::Result<Checkpoints> {
        Ok(Checkpoints {
            store: Store::open(folder, keep)?,
            recipe: recipe.canonical_toml(),
            recipe_digest: recipe.digest(),
            lock_digest: lock.input_digest(),
        })
    });
    let checkpoints = checkpoints.transpose()?;

    let device = Device::flex();
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
    // The folder shows no trace of a run until the weights are in: a run that cannot start leaves it free.
    let started = Instant::now();
    let decoder = prepared.base.load(precision(&recipe.model), &device)?;
    let mut log = RunLog::open(folder, &progress, prepared.steps, verbosity)?;
    for warning in &warnings {
        log.shown().warn(warning);
    }
    log.shown().detail(&format!("read the weights in {:.2} s", started.elapsed().as_secs_f64()));
    if progress.step > 0 {
        log.shown().note(&format!("continuing after step {} of {}", progress.step, prepared.steps));
    }
    lock.write(&folder.join("run.lock"))?;

    let first_step = progress.step;
    if recipe.log.tensorboard {
        log.tensorboard(folder, first_step)?;
    }
    let mut facts = FactsFile::open(folder, prepared, first_step)?;
    let before = answer(prepared, &decoder, &adapter)?;
    facts.answer(first_step, before.as_ref())?;
    let trained = train(Run {
        model: &decoder,
        adapter,
        optimizer,
        stream,
        eval: prepared.dataset.eval(),
        schedule: prepared.schedule,
        checkpoints,
        observer: &mut log,
        progress,
        settings: settings(prepared),
    });
    log.shown().finish();
    let Trained { adapter, first_eval, last_eval, progress } = trained?;
    let after = answer(prepared, &decoder, &adapter)?;
    facts.answer(progress.step, after.as_ref())?;

    let path = folder.join("adapter");
    export(prepared, &decoder, &adapter, &path)?;
    lock.results = Some(results(&path, folder, &progress, first_eval.as_ref(), last_eval.as_ref())?);
    lock.write(&folder.join("run.lock"))?;
    let report = report::write(folder)?;
    let merged = merged(prepared, &adapter, &folder.join("merged"))?;
    let shown = before.zip(after).map(|(before, after)| [before, after]);
    let steps = progress.step;
    Ok(Finished {
        adapter: path,
        report,
        merged,
        first_eval,
        last_eval,
        shown,
        steps,
        decoder,
        trained: adapter,
    })
}

fn optimizer(prepared: &Prepared, adapter: &Adapter) -> Optimizer {
    let cfg = &prepared.recipe.optimizer;
    let [beta1, beta2] = cfg.betas;
    let adamw = AdamW { beta1, beta2, eps: cfg.eps, weight_decay: cfg.weight_decay };
    Optimizer::new(adamw, prepared.recipe.train.max_grad_norm, adapter)
}

fn settings(prepared: &Prepared) -> Settings {
    let recipe = &prepared.recipe;
    let eval = recipe.eval.as_ref();
    Settings {
        steps: prepared.steps,
        seed: recipe.train.seed,
        dropout: recipe.adapter.dropout as f32,
        kept_blocks: prepared.memory.kept_blocks,
        eval_micro_batch: recipe.train.micro_batch as usize,
        eval_every: eval.map_or(0, |eval| eval.every_steps),
        eval_max_samples: eval.and_then(|eval| eval.max_samples).map(|samples| samples as usize),
        save_every: recipe.checkpoint.every_steps,
        output: recipe.output.clone(),
    }
}

/// Lets the model answer the first held-out question, where the recipe wants to see one.
fn answer(prepared: &Prepared, decoder: &Decoder, adapter: &Adapter) -> anyhow::Result<Option<Shown>> {
    let sample = prepared.dataset.eval().first().and_then(|source| source.samples.first());
    match (sample, &prepared.base.tokenizer) {
        (Some(sample), Some(tokenizer)) if prepared.recipe.log.sample => {
            show(sample, tokenizer, decoder, adapter, &prepared.base.stop_ids())
        }
        _ => Ok(None),
    }
}

/// Writes the PEFT folder, reads it back and compares the logits of a sample, which must agree to the bit.
fn export(prepared: &Prepared, decoder: &Decoder, adapter: &Adapter, path: &Path) -> anyhow::Result<()> {
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
    let back = Adapter::new(read?.weights, decoder.device());
    let probe = probe(prepared);
    let logits = |adapter: &Adapter| bits(decoder.logits(&Input::from(&probe), Some(adapter)));
    if logits(adapter) == logits(&back) {
        return Ok(());
    }
    Err(Explained::new(format!("the adapter in `{}` reads back with other logits", path.display()))
        .with_hint("this is a bug or a failing disk; the last checkpoint is intact")
        .into())
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

fn results(
    adapter: &Path,
    folder: &Path,
    progress: &Progress,
    before: Option<&Evaluation>,
    after: Option<&Evaluation>,
) -> anyhow::Result<Results> {
    let files = [peft::CONFIG_FILE, peft::MODEL_FILE].map(|name| -> anyhow::Result<File> {
        let content = fs_err::read(adapter.join(name))?;
        Ok(File { name: name.to_owned(), bytes: content.len() as u64, sha256: sha256_hex(&content) })
    });
    let steps = read_steps(&folder.join("metrics.jsonl"))?;
    let early = steps.iter().filter(|(step, ..)| *step <= EARLY_STEPS);
    Ok(Results {
        steps: progress.step,
        trained_tokens: progress.trained_tokens,
        final_loss: steps.last().map(|(_, loss, _)| *loss),
        eval_loss_before: before.map(Evaluation::loss),
        eval_loss_after: after.map(Evaluation::loss),
        adapter: AdapterResult { files: files.into_iter().collect::<anyhow::Result<_>>()? },
        early: early.map(|&(step, loss, grad_norm)| EarlyStep { step, loss, grad_norm }).collect(),
    })
}
