//! From what was typed to a checked recipe: defaults, ranges, and settings that would be ignored.

use super::byte_size::ByteSize;
use super::error::RecipeError;
use super::file::{AdapterFile, DataFile, ModelFile, ParallelFile, RecipeFile, SourceFile, Targets};
use super::licence::{license, policy};
use super::location::Location;
use super::parse::Typed;
use super::rank_count::RankCount;
use super::settings::{
    Adapter, AdapterStart, Checkpoint, Data, DataSource, Eval, Export, Length, Log, LoraShape, Model,
    Optimizer, Parallel, Recipe, Schedule, Train,
};
use super::{Activation, Format, OnLong, Quantize, ScheduleKind, TrainOn};
use seedcorn_kernels::device::DeviceChoice;
use std::path::Path;

/// The only layout of a recipe so far.
const VERSION: u64 = 1;
/// Fewer tokens hold no question with an answer.
const MIN_LENGTH_TOKENS: u64 = 8;
/// More tokens than any supported model's positions; guards memory arithmetic downstream.
const MAX_LENGTH_TOKENS: u64 = 1 << 24;
/// No sequence count, rank or step of a run comes near; keeps products within 64 bit.
const MAX_COUNT: u64 = 1 << 32;

/// No model has more key and value heads.
const MOST_SLICES: u64 = 1024;

type Result<T> = std::result::Result<T, RecipeError>;

impl Recipe {
    /// Fills in defaults and checks everything that needs no file.
    pub fn resolve(typed: Typed) -> Result<Recipe> {
        let Typed { file, folder } = typed;
        let version = file.version.ok_or_else(|| missing("version", "write `version = 1`"))?;
        if version != VERSION {
            return Err(RecipeError::Version { found: version, known: VERSION });
        }
        let output =
            file.output.as_deref().filter(|output| !output.trim().is_empty()).ok_or_else(|| {
                missing("output", "name the folder of the run, like `output = \"runs/first\"`")
            })?;
        let train = train(&file)?;
        let data = data(&file.data, &folder)?;
        Ok(Recipe {
            file: None,
            version,
            output: folder.join(output),
            device: device(file.device.as_deref())?,
            model: model(&file.model, &folder)?,
            adapter: adapter(&file.adapter, &folder)?,
            optimizer: optimizer(&file)?,
            schedule: schedule(&file, train.length())?,
            eval: eval(&file, &data)?,
            checkpoint: checkpoint(&file)?,
            export: Export { merged: file.export.merged.unwrap_or_default() },
            parallel: parallel(&file.parallel, &train)?,
            policy: policy(&file.policy)?,
            log: Log {
                sample: file.log.sample.unwrap_or(true),
                tensorboard: file.log.tensorboard.unwrap_or(true),
            },
            train,
            data,
        })
    }
}

impl Recipe {
    /// Settles how many ranks share out the micro-batches, once it is known how many processes a launcher has started,
    /// here and elsewhere, and how many of them on this machine.
    ///
    /// # Errors
    /// [`RecipeError::Launched`] when the recipe wants another number, [`RecipeError::Shares`] when the number does not
    /// divide the micro-batches of a step.
    pub fn settle_ranks(&mut self, launched: Option<usize>, on_this_machine: usize) -> Result<usize> {
        let launched = launched.map(|ranks| ranks as u64);
        let tensor = self.parallel.tensor;
        let data = match (self.parallel.data, launched) {
            (RankCount::Exactly(data), Some(launched)) if data.saturating_mul(tensor) != launched => {
                return Err(RecipeError::Launched { data: Some(data), tensor, launched });
            }
            (RankCount::Auto, Some(launched)) if !launched.is_multiple_of(tensor) => {
                return Err(RecipeError::Launched { data: None, tensor, launched });
            }
            (RankCount::Exactly(data), _) => data,
            (RankCount::Auto, launched) => launched.map_or(1, |ranks| ranks / tensor),
        };
        shares(data, self.train.accumulation())?;
        self.parallel.data = RankCount::Exactly(data);
        let ranks = data.saturating_mul(tensor);
        self.parallel.launched = launched.is_some();
        self.parallel.on_this_machine =
            if launched.is_none() { ranks } else { on_this_machine.max(1) as u64 };
        Ok(ranks as usize)
    }
}

/// Checks that every rank gets the same number of micro-batches.
fn shares(ranks: u64, micro_batches: u64) -> Result<()> {
    if micro_batches.is_multiple_of(ranks) {
        Ok(())
    } else {
        Err(RecipeError::Shares { ranks, micro_batches })
    }
}

fn parallel(file: &ParallelFile, train: &Train) -> Result<Parallel> {
    let data = file.data.unwrap_or_default();
    if let RankCount::Exactly(ranks) = data {
        shares(count("parallel.data", ranks)?, train.accumulation())?;
    }
    let tensor = file.tensor.unwrap_or(1);
    if !(1..=MOST_SLICES).contains(&tensor) {
        return Err(range("parallel.tensor", "from 1 to 1024", tensor));
    }
    let timeout_seconds = count("parallel.timeout_seconds", file.timeout_seconds.unwrap_or(30))?;
    let shard_base = file.shard_base.unwrap_or(false);
    let reduction = file.reduction.unwrap_or_default();
    Ok(Parallel { data, tensor, shard_base, timeout_seconds, reduction, on_this_machine: 1, launched: false })
}

fn device(typed: Option<&str>) -> Result<DeviceChoice> {
    let parse = |text: &str| text.parse().map_err(|_| range("device", DeviceChoice::EXPECTED, text));
    typed.map_or(Ok(DeviceChoice::Cpu), parse)
}

fn missing(key: &str, hint: &str) -> RecipeError {
    RecipeError::Missing { key: key.to_owned(), hint: hint.to_owned() }
}

fn no_effect(key: &str, because: impl Into<String>) -> RecipeError {
    RecipeError::NoEffect { key: key.to_owned(), because: because.into() }
}

fn range(key: &str, must: &'static str, found: impl std::fmt::Display) -> RecipeError {
    RecipeError::Range { key: key.to_owned(), must, found: format!("`{found}`") }
}

/// Returns `value` when it is finite and passes `test`.
fn number(key: &str, value: f64, must: &'static str, test: impl Fn(f64) -> bool) -> Result<f64> {
    if value.is_finite() && test(value) { Ok(value) } else { Err(range(key, must, value)) }
}

/// Returns a count of at least 1.
fn count(key: &str, value: u64) -> Result<u64> {
    match value {
        0 => Err(range(key, "at least 1", value)),
        1..=MAX_COUNT => Ok(value),
        _ => Err(range(key, "at most 4294967296", value)),
    }
}

fn hash(key: &str, text: &str) -> Result<String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(RecipeError::BadHash { key: key.to_owned(), found: text.chars().take(80).collect() })
    }
}

fn model(file: &ModelFile, folder: &Path) -> Result<Model> {
    let source = file.source.as_deref().ok_or_else(|| {
        missing("model.source", "name a folder, a `.gguf` file, `hf:org/name@revision` or `pypi:...`")
    })?;
    let quantize = file.quantize.unwrap_or_default();
    if file.double_quant.is_some() && quantize != Quantize::Nf4 {
        return Err(no_effect("model.double_quant", "without `model.quantize = \"nf4\"`"));
    }
    let pins = file.sha256.iter().flatten();
    Ok(Model {
        source: Location::new("model.source", source, folder)?,
        quantize,
        double_quant: (quantize == Quantize::Nf4).then(|| file.double_quant.unwrap_or(true)),
        compute: file.compute.unwrap_or_default(),
        sha256: pins
            .map(|(name, text)| Ok((name.clone(), hash(&format!("model.sha256.{name}"), text)?)))
            .collect::<Result<_>>()?,
        license: file.license.as_deref().map(|text| license("model.license", text)).transpose()?,
    })
}

fn adapter(file: &AdapterFile, folder: &Path) -> Result<Adapter> {
    let dropout =
        number("adapter.dropout", file.dropout.unwrap_or(0.0), "at least 0 and less than 1", |x| {
            (0.0..1.0).contains(&x)
        })?;
    let start = match &file.from {
        None => AdapterStart::Fresh(lora_shape(file)?),
        Some(from) => {
            let typed = [
                ("adapter.rank", file.rank.is_some()),
                ("adapter.alpha", file.alpha.is_some()),
                ("adapter.rslora", file.rslora.is_some()),
                ("adapter.targets", file.targets.is_some()),
                ("adapter.exclude", file.exclude.is_some()),
                ("adapter.rank_pattern", file.rank_pattern.is_some()),
                ("adapter.alpha_pattern", file.alpha_pattern.is_some()),
            ];
            if let Some((key, _)) = typed.iter().find(|(_, is_typed)| *is_typed) {
                return Err(no_effect(key, "with `adapter.from`, whose own configuration decides"));
            }
            AdapterStart::From { from: Location::new("adapter.from", from, folder)? }
        }
    };
    Ok(Adapter { kind: file.kind.unwrap_or_default(), dropout, start })
}

fn lora_shape(file: &AdapterFile) -> Result<LoraShape> {
    let rank = count("adapter.rank", file.rank.unwrap_or(16))?;
    let positive = |key: &str, alpha: f64| number(key, alpha, "more than 0", |x| x > 0.0);
    let targets = file.targets.clone().unwrap_or_else(|| Targets::Text("all-linear".to_owned()));
    match &targets {
        Targets::Names(names) if names.is_empty() => {
            return Err(range("adapter.targets", "at least one name", "[]"));
        }
        Targets::Text(text) if !targets.is_all_linear() => pattern("adapter.targets", text)?,
        _ => {}
    }
    let rank_pattern = file.rank_pattern.clone().unwrap_or_default();
    let alpha_pattern = file.alpha_pattern.clone().unwrap_or_default();
    for (name, rank) in &rank_pattern {
        pattern("adapter.rank_pattern", name)?;
        count(&format!("adapter.rank_pattern.{name}"), *rank)?;
    }
    for (name, alpha) in &alpha_pattern {
        pattern("adapter.alpha_pattern", name)?;
        positive(&format!("adapter.alpha_pattern.{name}"), *alpha)?;
    }
    Ok(LoraShape {
        rank,
        alpha: positive("adapter.alpha", file.alpha.unwrap_or(2.0 * rank as f64))?,
        rslora: file.rslora.unwrap_or(false),
        targets,
        exclude: file.exclude.clone().unwrap_or_default(),
        rank_pattern,
        alpha_pattern,
    })
}

fn pattern(key: &str, text: &str) -> Result<()> {
    regex::Regex::new(text).map(|_| ()).map_err(|source| RecipeError::BadPattern {
        key: key.to_owned(),
        pattern: text.to_owned(),
        source: Box::new(source),
    })
}

fn data(file: &DataFile, folder: &Path) -> Result<Data> {
    if file.train.is_empty() {
        return Err(missing("data.train", "add a `[[data.train]]` table with `source` and `format`"));
    }
    let held_out = [
        ("data.eval_fraction", file.eval_fraction.is_some()),
        ("data.eval_count", file.eval_count.is_some()),
        ("data.eval", !file.eval.is_empty()),
    ];
    let keys: Vec<_> = held_out.iter().filter(|(_, is_typed)| *is_typed).map(|(key, _)| *key).collect();
    if keys.len() > 1 {
        return Err(RecipeError::Exclusive { keys, hint: "hold samples out in one way only" });
    }
    let all = || file.train.iter().chain(&file.eval);
    let takes_default =
        |source: &SourceFile| source.train_on.is_none() && source.format.is_some_and(Format::has_turns);
    if file.train_on.is_some() && !all().any(takes_default) {
        return Err(no_effect("data.train_on", "on these sources, since none has questions and answers"));
    }
    let turns = |source: &&SourceFile| source.format.is_some_and(Format::has_turns);
    if let (Some(OnLong::Split), Some(_)) = (file.on_long, all().find(turns)) {
        // A part would have the question without the answer.
        return Err(range(
            "data.on_long",
            "`truncate` or `drop` for sources with questions and answers",
            "split",
        ));
    }
    let max_length = file.max_length.unwrap_or(1024);
    if !(MIN_LENGTH_TOKENS..=MAX_LENGTH_TOKENS).contains(&max_length) {
        return Err(range("data.max_length", "from 8 to 16777216 tokens", max_length));
    }
    let fraction =
        |x| number("data.eval_fraction", x, "at least 0 and less than 1", |x| (0.0..1.0).contains(&x));
    let sources = |list: &[SourceFile], key: &str| {
        let one = |(index, item)| source(item, &format!("{key}.{index}"), file.train_on, folder);
        list.iter().enumerate().map(one).collect::<Result<Vec<_>>>()
    };
    Ok(Data {
        max_length,
        on_long: file.on_long.unwrap_or_default(),
        packing: file.packing.unwrap_or(true),
        shuffle: file.shuffle.unwrap_or(true),
        eval_fraction: file.eval_fraction.map(fraction).transpose()?,
        eval_count: file.eval_count,
        train: sources(&file.train, "data.train")?,
        eval: sources(&file.eval, "data.eval")?,
    })
}

fn source(file: &SourceFile, key: &str, default: Option<TrainOn>, folder: &Path) -> Result<DataSource> {
    let at = |name: &str| format!("{key}.{name}");
    let text = file.source.as_deref().ok_or_else(|| {
        missing(&at("source"), "name a `.jsonl`, `.json`, `.csv` or `.txt` file, `hf:...` or `pypi:...`")
    })?;
    let format = file.format.ok_or_else(|| {
        missing(&at("format"), "write one of `chat`, `instruction`, `completion`, `text`, `tokens`")
    })?;
    if let Some(train_on) = file.train_on {
        let because = match format {
            Format::Tokens => Some("on `tokens`, whose labels decide"),
            Format::Text if train_on != TrainOn::All => Some("on `text`, which is trained whole"),
            _ => None,
        };
        if let Some(because) = because {
            return Err(no_effect(&at("train_on"), because));
        }
    }
    let fields = file.fields.clone().unwrap_or_default();
    if let Some(unknown) = fields.keys().find(|name| !format.fields().contains(&name.as_str())) {
        let known = format.fields().join("`, `");
        return Err(no_effect(
            &at(&format!("fields.{unknown}")),
            format!("on this format, which reads `{known}`"),
        ));
    }
    let is_training = key.starts_with("data.train");
    if file.weight.is_some() && !is_training {
        return Err(no_effect(&at("weight"), "on held-out data, which is evaluated whole"));
    }
    let weight = number(&at("weight"), file.weight.unwrap_or(1.0), "more than 0", |x| x > 0.0)?;
    let default = default.filter(|_| format.has_turns()).or(format.default_train_on());
    Ok(DataSource {
        source: Location::new(&at("source"), text, folder)?,
        format,
        weight: is_training.then_some(weight),
        train_on: file.train_on.or(default),
        sha256: file.sha256.as_deref().map(|text| hash(&at("sha256"), text)).transpose()?,
        license: file.license.as_deref().map(|text| license(&at("license"), text)).transpose()?,
        fields,
    })
}

fn train(file: &RecipeFile) -> Result<Train> {
    let file = &file.train;
    let batch_size = file
        .batch_size
        .ok_or_else(|| missing("train.batch_size", "write the sequences of one optimizer step, like 16"))?;
    let batch_size = count("train.batch_size", batch_size)?;
    let micro_batch = count("train.micro_batch", file.micro_batch.unwrap_or(1))?;
    if !batch_size.is_multiple_of(micro_batch) {
        return Err(RecipeError::NotDivisible { batch_size, micro_batch });
    }
    match (file.steps, file.epochs) {
        (None, None) => return Err(missing("train.steps", "write `train.steps` or `train.epochs`")),
        (Some(_), Some(_)) => {
            let keys = vec!["train.steps", "train.epochs"];
            return Err(RecipeError::Exclusive { keys, hint: "keep one of them" });
        }
        _ => {}
    }
    let max_grad_norm = file.max_grad_norm.unwrap_or(1.0);
    let activation = file.activation.unwrap_or_default();
    if file.memory_budget.is_some() && activation != Activation::Auto {
        return Err(no_effect("train.memory_budget", "without `train.activation = \"auto\"`"));
    }
    Ok(Train {
        batch_size,
        micro_batch,
        steps: file.steps.map(|steps| count("train.steps", steps)).transpose()?,
        epochs: file.epochs.map(|epochs| count("train.epochs", epochs)).transpose()?,
        seed: file.seed.unwrap_or(0),
        max_grad_norm: number("train.max_grad_norm", max_grad_norm, "at least 0", |x| x >= 0.0)?,
        activation,
        memory_budget: file.memory_budget.as_ref().map(memory_budget).transpose()?,
    })
}

fn memory_budget(size: &ByteSize) -> Result<u64> {
    let must = "a size of at least one byte, like `4 GiB` or 4000000000";
    size.bytes().filter(|&bytes| bytes > 0).ok_or_else(|| range("train.memory_budget", must, size))
}

fn optimizer(file: &RecipeFile) -> Result<Optimizer> {
    let file = &file.optimizer;
    let betas = match file.betas.as_deref() {
        None => [0.9, 0.999],
        Some(&[first, second]) => [first, second],
        Some(other) => return Err(range("optimizer.betas", "two numbers", format!("{other:?}"))),
    };
    for beta in betas {
        number("optimizer.betas", beta, "at least 0 and less than 1", |x| (0.0..1.0).contains(&x))?;
    }
    let decay = file.weight_decay.unwrap_or(0.0);
    Ok(Optimizer {
        kind: file.kind.unwrap_or_default(),
        lr: number("optimizer.lr", file.lr.unwrap_or(2e-4), "more than 0", |x| x > 0.0)?,
        betas,
        eps: number("optimizer.eps", file.eps.unwrap_or(1e-8), "more than 0", |x| x > 0.0)?,
        weight_decay: number("optimizer.weight_decay", decay, "at least 0", |x| x >= 0.0)?,
    })
}

fn schedule(file: &RecipeFile, length: Length) -> Result<Schedule> {
    let file = &file.schedule;
    let kind = file.kind.unwrap_or_default();
    let warmup_steps = file.warmup_steps.unwrap_or(0);
    if let Length::Steps(steps) = length
        && warmup_steps > steps
    {
        return Err(RecipeError::WarmUpTooLong { warmup_steps, steps });
    }
    if file.min_ratio.is_some() && kind == ScheduleKind::Constant {
        return Err(no_effect("schedule.min_ratio", "with `schedule.kind = \"constant\"`"));
    }
    let min_ratio = file.min_ratio.unwrap_or(0.0);
    let min_ratio = number("schedule.min_ratio", min_ratio, "from 0 to 1", |x| (0.0..=1.0).contains(&x))?;
    Ok(Schedule { kind, warmup_steps, min_ratio: (kind != ScheduleKind::Constant).then_some(min_ratio) })
}

fn eval(file: &RecipeFile, data: &Data) -> Result<Option<Eval>> {
    let file = &file.eval;
    let held_out = data.eval_fraction.is_some_and(|fraction| fraction > 0.0)
        || data.eval_count.is_some_and(|count| count > 0)
        || !data.eval.is_empty();
    if !held_out {
        let typed = [
            ("eval.every_steps", file.every_steps.is_some()),
            ("eval.max_samples", file.max_samples.is_some()),
        ];
        return match typed.iter().find(|(_, is_typed)| *is_typed) {
            Some((key, _)) => Err(no_effect(
                key,
                "without held-out data (`data.eval_fraction`, `data.eval_count` or `[[data.eval]]`)",
            )),
            None => Ok(None),
        };
    }
    Ok(Some(Eval {
        every_steps: file.every_steps.unwrap_or(0),
        max_samples: file.max_samples.map(|samples| count("eval.max_samples", samples)).transpose()?,
    }))
}

fn checkpoint(file: &RecipeFile) -> Result<Checkpoint> {
    let file = &file.checkpoint;
    let every_steps = file.every_steps.unwrap_or(100);
    if every_steps == 0 && file.keep.is_some() {
        return Err(no_effect("checkpoint.keep", "with `checkpoint.every_steps = 0`"));
    }
    let keep = count("checkpoint.keep", file.keep.unwrap_or(2))?;
    Ok(Checkpoint { every_steps, keep: (every_steps > 0).then_some(keep) })
}
