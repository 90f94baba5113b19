//! From a checked recipe to everything a run needs but the weights: files, samples, the adapter's shape.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use seedcorn_adapters::lora::{LoraConfig, LoraWeights, PlannedModule};
use seedcorn_adapters::peft;
use seedcorn_adapters::target::{LinearModule, Targets};
use seedcorn_data::source::{self, Resolved, Resolver, Source};
use seedcorn_data::{Dataset, LoadOptions, SourceSpec, Split, Stream, StreamConfig};
use seedcorn_kernels::frozen::Compute;

use crate::base::{self, Base};
use crate::log::available_memory_bytes;
use crate::memory;
use crate::model::Precision;
use crate::plan::Frozen;
use crate::provenance::Licences;
use crate::recipe::{self, AdapterStart, DataSource, Length, LoraShape, Recipe};
use crate::schedule::Schedule;

/// A run whose inputs have been found, read and checked; no weight has been read.
pub struct Prepared {
    /// The recipe.
    pub recipe: Recipe,
    /// The base model's files.
    pub base: Base,
    /// The files of every data source: training sources, then evaluation sources.
    pub data_files: Vec<Resolved>,
    /// What is known of the sources' licences.
    pub licences: Licences,
    /// Tokenized samples.
    pub dataset: Arc<Dataset>,
    /// The files of the adapter that the run continues from.
    pub adapter_files: Option<Resolved>,
    /// The adapter's configuration.
    pub lora: LoraConfig,
    /// The adapter's first values.
    pub weights: Vec<LoraWeights>,
    /// How samples become steps.
    pub stream: StreamConfig,
    /// The steps of the run, from the first on: the first epoch is packed once.
    pub order: Stream,
    /// Optimizer steps of the run.
    pub steps: u64,
    /// Learning rate by step.
    pub schedule: Schedule,
    /// What is kept for the backward pass.
    pub memory: memory::Plan,
}

/// Finds, fetches and reads everything that a recipe names, up to the weights.
///
/// # Errors
/// The first fault of the model's files, the data or the adapter.
pub fn prepare(recipe: Recipe, resolver: &Resolver) -> anyhow::Result<Prepared> {
    let here = Path::new("");
    let mut licences = Licences::stated(&recipe);
    licences.before(&recipe, resolver)?;
    let resolver_of_model = resolver.with_pins(recipe.model.sha256.clone());
    let base = base::open(&recipe.model.source.resolved(), here, &resolver_of_model)
        .context("could not use `model.source`")?;
    licences.of_base(&base, &recipe, resolver)?;
    let mut data_files = Vec::new();
    let mut specs = |key: &str, list: &[DataSource]| -> anyhow::Result<Vec<SourceSpec>> {
        list.iter()
            .enumerate()
            .map(|(index, one)| {
                let (resolved, spec) = data_source(one, resolver)
                    .with_context(|| format!("could not use `{key}.{index}.source`"))?;
                data_files.push(resolved);
                Ok(spec)
            })
            .collect()
    };
    let (train, eval) = (specs("data.train", &recipe.data.train)?, specs("data.eval", &recipe.data.eval)?);
    licences.of_data(&recipe, resolver)?;
    let options = LoadOptions {
        max_length: recipe.data.max_length as usize,
        on_long: match recipe.data.on_long {
            recipe::OnLong::Truncate => seedcorn_data::OnLong::Truncate,
            recipe::OnLong::Drop => seedcorn_data::OnLong::Drop,
            recipe::OnLong::Split => seedcorn_data::OnLong::Split,
        },
        seed: recipe.train.seed,
        split: match (recipe.data.eval_count, recipe.data.eval_fraction) {
            (Some(count), _) => Split::Count(count),
            (None, Some(fraction)) => Split::Fraction(fraction),
            (None, None) => Split::None,
        },
        eval,
        vocab_size: Some(base.spec.vocab_size),
    };
    let dataset = Arc::new(Dataset::load(&train, base.tokenizer.as_ref(), &options)?);
    let (adapter_files, lora, weights) = adapter(&recipe, &base.linear_modules(), resolver)?;
    base.check(precision(&recipe.model), recipe.parallel.tensor as usize)?;
    let stream = StreamConfig {
        batch_size: recipe.train.batch_size as usize,
        micro_batch: recipe.train.micro_batch as usize,
        packing: recipe.data.packing,
        max_length: recipe.data.max_length as usize,
        shuffle: recipe.data.shuffle,
        seed: recipe.train.seed,
    };
    let order = Stream::new(dataset.clone(), stream.clone())?;
    let steps = match recipe.train.length() {
        Length::Steps(steps) => steps,
        Length::Epochs(epochs) => epochs.saturating_mul(order.steps_per_epoch()),
    };
    let schedule = Schedule::new(&recipe.schedule, recipe.optimizer.lr, steps)?;
    let tokens = || dataset.samples().iter().map(seedcorn_data::Sample::tokens);
    let lengths = [tokens().max().unwrap_or(0), tokens().sum()];
    let frozen = Frozen::of(&base, precision(&recipe.model), recipe.parallel.tensor as usize).total();
    let available = available_memory_bytes();
    let memory = memory::plan(&recipe, &base.spec, &planned(&weights), lengths, frozen, available)?;
    Ok(Prepared {
        recipe,
        base,
        data_files,
        licences,
        dataset,
        adapter_files,
        lora,
        weights,
        stream,
        order,
        steps,
        schedule,
        memory,
    })
}

/// Returns the shapes of an adapter's factors.
pub(crate) fn planned(weights: &[LoraWeights]) -> Vec<PlannedModule> {
    let shape = |one: &LoraWeights| PlannedModule {
        module: LinearModule {
            name: one.name.clone(),
            in_features: one.in_features,
            out_features: one.out_features,
        },
        rank: one.rank,
        scale: one.scale,
    };
    weights.iter().map(shape).collect()
}

/// Returns how the recipe keeps the frozen weights.
pub fn precision(model: &recipe::Model) -> Precision {
    Precision {
        quantize: model.quantize,
        double_quant: model.double_quant.unwrap_or(false),
        compute: compute(model.compute),
    }
}

/// Returns what products are computed in.
pub(crate) fn compute(typed: recipe::Compute) -> Compute {
    match typed {
        recipe::Compute::F32 => Compute::F32,
        recipe::Compute::Bf16 => Compute::Bf16,
    }
}

/// Finds the one file of a data source.
fn data_source(one: &DataSource, resolver: &Resolver) -> anyhow::Result<(Resolved, SourceSpec)> {
    let source = Source::parse(&one.source.resolved(), Path::new(""))?;
    let pin = source.file_name().zip(one.sha256.clone()).into_iter().collect::<BTreeMap<_, _>>();
    let resolved = source::resolve(&source, &resolver.with_pins(pin))?;
    let spec = file_spec(&resolved, one.source.typed(), one.format, one.train_on, one.weight.unwrap_or(1.0))?;
    let spec = SourceSpec { fields: one.fields.clone(), ..spec };
    Ok((resolved, spec))
}

/// Describes a resolved file to the data reader.
pub(crate) fn file_spec(
    resolved: &Resolved,
    name: &str,
    format: recipe::Format,
    train_on: Option<recipe::TrainOn>,
    weight: f64,
) -> anyhow::Result<SourceSpec> {
    let [file] = resolved.files.as_slice() else {
        let problem = format!("the data source `{name}` is a folder of {} files", resolved.files.len());
        return Err(crate::error::Explained::usage(problem)
            .with_hint("name one `.jsonl`, `.json`, `.csv` or `.txt` file")
            .into());
    };
    let train_on = train_on.or(format.default_train_on()).unwrap_or(recipe::TrainOn::All);
    Ok(SourceSpec {
        path: file.path.clone(),
        file_name: file.name.clone(),
        name: name.to_owned(),
        format: match format {
            recipe::Format::Chat => seedcorn_data::Format::Chat,
            recipe::Format::Instruction => seedcorn_data::Format::Instruction,
            recipe::Format::Completion => seedcorn_data::Format::Completion,
            recipe::Format::Text => seedcorn_data::Format::Text,
            recipe::Format::Tokens => seedcorn_data::Format::Tokens,
        },
        fields: BTreeMap::new(),
        weight,
        train_on: match train_on {
            recipe::TrainOn::Assistant => seedcorn_data::TrainOn::Assistant,
            recipe::TrainOn::All => seedcorn_data::TrainOn::All,
            recipe::TrainOn::Last => seedcorn_data::TrainOn::Last,
        },
    })
}

/// Leaves of an adapter's folder the files that are read: what else lies there, like a lock with the times of its
/// run, decides nothing.
pub(crate) fn keep_adapter_files(resolved: &mut Resolved) {
    resolved.files.retain(|file| [peft::CONFIG_FILE, peft::MODEL_FILE].contains(&file.name.as_str()));
}

/// Plans a fresh adapter, or reads the one that the recipe continues from.
pub(crate) fn adapter(
    recipe: &Recipe,
    modules: &[LinearModule],
    resolver: &Resolver,
) -> anyhow::Result<(Option<Resolved>, LoraConfig, Vec<LoraWeights>)> {
    let dropout = recipe.adapter.dropout as f32;
    match &recipe.adapter.start {
        AdapterStart::From { from } => {
            let mut resolved = Source::parse(&from.resolved(), Path::new(""))
                .and_then(|source| source::resolve(&source, resolver))
                .context("could not use `adapter.from`")?;
            keep_adapter_files(&mut resolved);
            let read = peft::read(&resolved.root, modules)
                .with_context(|| format!("could not use `adapter.from` (`{}`)", from.typed()))?;
            Ok((Some(resolved), LoraConfig { dropout, ..read.config.lora }, read.weights))
        }
        AdapterStart::Fresh(shape) => {
            let lora = fresh(shape, dropout);
            let planned = lora.plan(modules)?;
            let weights = planned.iter().map(|module| LoraWeights::init(module, recipe.train.seed)).collect();
            Ok((None, lora, weights))
        }
    }
}

/// Returns what a recipe asks of a fresh adapter.
pub(crate) fn fresh(shape: &LoraShape, dropout: f32) -> LoraConfig {
    LoraConfig {
        rank: shape.rank as usize,
        alpha: shape.alpha,
        dropout,
        rslora: shape.rslora,
        targets: match &shape.targets {
            recipe::Targets::Text(text) => Targets::from_text(text),
            recipe::Targets::Names(list) => Targets::List(list.clone()),
        },
        exclude: shape.exclude.clone(),
        rank_pattern: shape.rank_pattern.iter().map(|(key, rank)| (key.clone(), *rank as usize)).collect(),
        alpha_pattern: shape.alpha_pattern.clone(),
    }
}
