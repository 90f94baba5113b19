//! The only training loop. One turn of `while` is one optimizer step.

use std::path::PathBuf;
use std::time::Instant;

use seedcorn_adapters::{Adapter, DropoutPlan};
use seedcorn_data::{EvalSource, MicroBatch, Stream};

use crate::bad_batch;
use crate::checkpoint::CheckpointError;
use crate::evaluate::{EvalShape, Evaluation, evaluate};
use crate::model::{Input, Model, Pass};
use crate::optimizer::{Mean, Optimizer};
use crate::parallel::{Exchanged, ParallelError, Ranks, STOP, Sum};
use crate::progress::{Observer, Progress, StepRecord};
use crate::recipe::Reduction;
use crate::schedule::Schedule;
use crate::snapshot::{self, Checkpoints};
use crate::stop::Stop;

/// Everything the loop works with.
pub struct Run<'a> {
    /// The ranks that train together, seen from this one.
    pub ranks: &'a Ranks<'a>,
    /// Whether someone has asked this process to stop.
    pub stop: &'a Stop,
    /// The frozen model.
    pub model: Model<'a>,
    /// What is trained.
    pub adapter: Adapter,
    /// The update rule and its moments.
    pub optimizer: Optimizer,
    /// Training data, standing where the run stands.
    pub stream: Stream,
    /// Held-out data; may be empty.
    pub eval: &'a [EvalSource],
    /// Learning rate by step.
    pub schedule: Schedule,
    /// Where states are saved; none saves none, as on every rank but the first.
    pub checkpoints: Option<Checkpoints>,
    /// Who hears of steps and evaluations.
    pub observer: &'a mut dyn Observer,
    /// Where the run stands.
    pub progress: Progress,
    /// Numbers of the recipe.
    pub settings: Settings,
}

/// The numbers of a recipe that the loop reads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Seed of dropout.
    pub seed: u64,
    /// Probability that an element of an adapter's input is zeroed.
    pub dropout: f32,
    /// The last blocks, whose graphs are kept for the backward pass; the others keep their inputs.
    pub kept_blocks: usize,
    /// How ranks add their gradients.
    pub reduction: Reduction,
    /// Samples that go through the model at once in evaluation.
    pub eval_micro_batch: usize,
    /// Steps between evaluations; 0 evaluates only before step 1 and at the end.
    pub eval_every: u64,
    /// Evaluates only so many samples of each source.
    pub eval_max_samples: Option<usize>,
    /// Steps between checkpoints; 0 saves none.
    pub save_every: u64,
    /// Folder of the run: a batch that breaks it is kept there.
    pub output: PathBuf,
}

/// What a run leaves in memory.
#[derive(Debug)]
pub struct Trained {
    /// The trained adapter.
    pub adapter: Adapter,
    /// Evaluation before step 1, unless the run was resumed.
    pub first_eval: Option<Evaluation>,
    /// Evaluation after the last step.
    pub last_eval: Option<Evaluation>,
    /// Where the run ended.
    pub progress: Progress,
    /// What this rank has sent to others.
    pub traffic: Exchanged,
}

/// Why a run stopped before its last step.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data ran into a step that trains nothing, or worse.
    #[error(transparent)]
    Data(#[from] seedcorn_data::Error),
    /// A state could not be saved.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The log could not be written.
    #[error("could not write the metrics of step {step}")]
    Log {
        /// The step.
        step: u64,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The ranks cannot go on together.
    #[error(transparent)]
    Parallel(#[from] ParallelError),
    /// Someone asked to stop, and the run is not done.
    #[error("stopped by a signal after step {step} of {steps}")]
    Stopped {
        /// Steps done.
        step: u64,
        /// Steps of the run.
        steps: u64,
        /// Whether this state was saved.
        saved: bool,
    },
    /// A loss or gradient norm that no update may follow.
    #[error("{what} is not finite at step {step} ({value}); the update was not applied")]
    NotFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The step.
        step: u64,
        /// The value.
        value: f64,
        /// Where the step's samples are kept, if they could be written.
        saved: Option<PathBuf>,
    },
}

impl TrainError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFinite { saved, .. } => {
                let batch = saved.as_ref().map_or(String::new(), |path| {
                    format!("the step's samples are in `{}`; ", path.display())
                });
                Some(format!("{batch}resume from the last checkpoint with a lower `optimizer.lr`"))
            }
            Self::Stopped { saved: true, .. } => Some("the state is saved; continue with `--resume`".into()),
            Self::Stopped { saved: false, .. } => {
                Some("nothing was saved, since `checkpoint.every_steps` is 0; start again".into())
            }
            Self::Parallel(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Log { .. } => Some("free some space, then continue with `--resume`".into()),
        }
    }

    /// Whether every rank comes to the same error at the same place, so that one of them may speak for all.
    pub fn is_common(&self) -> bool {
        match self {
            Self::Data(_) | Self::NotFinite { .. } | Self::Stopped { .. } => true,
            Self::Parallel(error) => error.is_common(),
            Self::Checkpoint(_) | Self::Log { .. } => false,
        }
    }
}

/// Trains until the recipe's last step.
///
/// # Numerics
/// The loss of a step is the sum of its token losses divided once by the number of its trained tokens, and so
/// is the gradient. Both are added over micro-batches in a [`crate::model::Tree`], whichever rank computes them: every
/// rank gets the same sums and makes the same update. With [`Reduction::Fast`] the order of the gradients' sum depends on
/// the ranks; all of them still get the same one.
///
/// # Errors
/// [`TrainError`]; whatever was saved before stays as it was.
pub fn train(run: Run) -> Result<Trained, TrainError> {
    let Run { ranks, stop, model, mut adapter, mut optimizer, mut stream, eval, schedule, .. } = run;
    let Run { checkpoints, observer, mut progress, settings: cfg, .. } = run;
    let evaluation = |adapter: &Adapter, step| {
        let how = EvalShape { micro_batch: cfg.eval_micro_batch, max_samples: cfg.eval_max_samples };
        let found = evaluate(ranks, step, model, Some(adapter), eval, how)?;
        Ok::<_, TrainError>((!found.sources.is_empty()).then_some(found))
    };
    let lengths = model.decoder().factor_lengths(&adapter);
    let mut first_eval = None;
    if progress.step == 0 {
        first_eval = evaluation(&adapter, 0)?;
        report_eval(observer, &mut progress, first_eval.as_ref())?;
    }
    let mut last_eval = None;

    while progress.step < cfg.steps {
        let started = Instant::now();
        // 1. Batch. One count of trained tokens for the whole step, which every rank knows.
        let micro_batches = stream.next_step()?;
        let trained_tokens: usize = micro_batches.iter().map(MicroBatch::target_tokens).sum();
        let step = progress.step + 1;

        // 2. Forward and backward. Losses are sums over tokens, divided once.
        let trained: Vec<_> = micro_batches.iter().filter(|batch| batch.target_tokens() > 0).collect();
        let mut sum = ranks.sum(step, trained.len(), cfg.reduction);
        let (share, model) = (&trained[ranks.share(trained.len())], model.at(step));
        model.each(share, trained.len(), Pass::Training, |batch| {
            let dropout = DropoutPlan { probability: cfg.dropout, seed: cfg.seed, micro_batch: batch.index };
            let input = Input::from(*batch);
            sum.push(model.loss_and_gradients(&input, &adapter, Some(dropout), cfg.kept_blocks)?);
            Ok(())
        })?;
        let Sum { loss, gradients, stop } = sum.finish(&lengths, stop.is_asked())?;
        let stop = ranks.tensor(step).any(STOP, stop)?;
        let gradients = model.whole_gradients(&adapter, gradients)?;
        let mean = Mean::of(&loss, gradients, trained_tokens);
        let (loss, grad_norm) = (mean.loss, mean.grad_norm);

        // 3. Update, only if all is finite.
        for (what, value) in [("loss", loss), ("gradient norm", grad_norm)] {
            if !value.is_finite() {
                let saved =
                    ranks.leads().then(|| bad_batch::save(&cfg.output, step, &micro_batches)).flatten();
                return Err(TrainError::NotFinite { what, step, value, saved });
            }
        }
        let lr = schedule.lr(step);
        optimizer.update(&mut adapter, mean, lr);
        progress.advance(trained_tokens as u64, stream.cursor());

        // 4. Once in a while; the last step always counts. All ranks take the same branch.
        let seconds = started.elapsed().as_secs_f64();
        let tokens = micro_batches.iter().map(MicroBatch::tokens).sum();
        let record = StepRecord { step, loss, grad_norm, lr, trained_tokens, tokens, seconds };
        observer.step(&record, &adapter).map_err(|source| TrainError::Log { step, source })?;
        let due = |every: u64| step == cfg.steps || (every > 0 && step.is_multiple_of(every));
        if due(cfg.eval_every) {
            last_eval = evaluation(&adapter, step)?;
            report_eval(observer, &mut progress, last_eval.as_ref())?;
        }
        if due(cfg.save_every) || stop {
            ranks.compare(step, || snapshot::digest(&adapter, &optimizer))?;
            if let Some(checkpoints) = &checkpoints {
                observer.before_checkpoint().map_err(|source| TrainError::Log { step, source })?;
                checkpoints.save(&progress, &adapter, &optimizer)?;
            }
        }
        if stop && step < cfg.steps {
            return Err(TrainError::Stopped { step, steps: cfg.steps, saved: checkpoints.is_some() });
        }
    }
    if last_eval.is_none() {
        last_eval = evaluation(&adapter, progress.step)?;
    }
    Ok(Trained { adapter, first_eval, last_eval, progress, traffic: ranks.traffic() })
}

fn report_eval(
    observer: &mut dyn Observer,
    progress: &mut Progress,
    evaluation: Option<&Evaluation>,
) -> Result<(), TrainError> {
    let Some(evaluation) = evaluation else { return Ok(()) };
    let best = progress.best_eval_loss.map_or(evaluation.loss(), |best| best.min(evaluation.loss()));
    progress.best_eval_loss = Some(best);
    observer
        .evaluation(progress.step, evaluation)
        .map_err(|source| TrainError::Log { step: progress.step, source })
}
