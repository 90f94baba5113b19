//! The sizes that a plan is made of: of a run whose inputs were read, or of a configuration alone.

use std::path::Path;

use anyhow::Context;
use seedcorn_adapters::lora::PlannedModule;
use seedcorn_adapters::target::OUTPUT_HEAD;
use seedcorn_data::source::Resolver;

use super::Frozen;
use crate::build::{self, Prepared, precision};
use crate::log::available_memory_bytes;
use crate::memory;
use crate::model::ModelSpec;
use crate::parallel::{Mesh, Traffic};
use crate::recipe::{AdapterStart, Location, RankCount, Recipe};

/// The sizes of a run; no values.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The recipe.
    pub recipe: Recipe,
    /// The model.
    pub spec: ModelSpec,
    /// Bytes of its weights.
    pub frozen: Frozen,
    /// Layers with an adapter.
    pub adapted: Vec<PlannedModule>,
    /// What is kept for the backward pass, and the tokens of the largest micro-batch.
    pub activations: memory::Plan,
    /// Tokens of the longest sample that is trained, and of all.
    pub lengths: [usize; 2],
    /// Tokens of the largest batch of an evaluation, and how many batches there are.
    pub evaluation: [usize; 2],
    /// Tokens of all samples in memory.
    pub data_tokens: usize,
    /// Whether a tokenizer is in memory.
    pub tokenizer: bool,
    /// Whether nothing but the model's configuration was read.
    pub imagined: bool,
}

impl Subject {
    /// Takes the sizes of a run whose inputs were read.
    pub fn of(prepared: &Prepared) -> Self {
        let (recipe, base, dataset) = (&prepared.recipe, &prepared.base, &prepared.dataset);
        let tokens = || dataset.samples().iter().map(seedcorn_data::Sample::tokens);
        let batch = recipe.train.micro_batch as usize;
        let limit = recipe.eval.as_ref().and_then(|eval| eval.max_samples).unwrap_or(u64::MAX) as usize;
        let mut evaluation = [0, 0];
        for source in dataset.eval() {
            let samples = &source.samples[..source.samples.len().min(limit)];
            let sizes =
                samples.chunks(batch).map(|batch| batch.iter().map(seedcorn_data::Sample::tokens).sum());
            evaluation[0] = sizes.max().unwrap_or(0).max(evaluation[0]);
            evaluation[1] += samples.len().div_ceil(batch);
        }
        let held_out = dataset.eval().iter().flat_map(|source| &source.samples);
        let held_out = held_out.map(seedcorn_data::Sample::tokens).sum::<usize>();
        Self {
            frozen: Frozen::of(base, precision(&recipe.model)),
            adapted: build::planned(&prepared.weights),
            activations: prepared.memory.clone(),
            lengths: [tokens().max().unwrap_or(0), tokens().sum()],
            evaluation,
            data_tokens: tokens().sum::<usize>() + held_out,
            tokenizer: base.tokenizer.is_some(),
            imagined: false,
            spec: base.spec.clone(),
            recipe: recipe.clone(),
        }
    }

    /// Takes the sizes of a model of which there is `config.json` alone. No data is read: samples are taken to be as
    /// long as `data.max_length` allows, and few.
    ///
    /// # Errors
    /// What is wrong with the configuration or the adapter.
    pub fn imagined(recipe: Recipe, folder: &Path, resolver: &Resolver) -> anyhow::Result<Self> {
        let spec = ModelSpec::read(&folder.join("config.json"))
            .with_context(|| format!("could not use the configuration of `{}`", folder.display()))?;
        let modules: Vec<_> =
            spec.linear_modules().into_iter().filter(|module| module.name != OUTPUT_HEAD).collect();
        let adapted = match &recipe.adapter.start {
            AdapterStart::Fresh(shape) => {
                build::fresh(shape, recipe.adapter.dropout as f32).plan(&modules)?
            }
            AdapterStart::From { .. } => build::planned(&build::adapter(&recipe, &modules, resolver)?.2),
        };
        let frozen = Frozen::new(&spec, precision(&recipe.model), &|_| None);
        let lengths = [recipe.data.max_length as usize, usize::MAX];
        let available = available_memory_bytes();
        let activations = memory::plan(&recipe, &spec, &adapted, lengths, frozen.total(), available)?;
        let evaluation = [recipe.eval.as_ref().map_or(0, |_| activations.tokens), 0];
        Ok(Self {
            frozen,
            adapted,
            activations,
            lengths,
            evaluation,
            data_tokens: 0,
            tokenizer: true,
            imagined: true,
            spec,
            recipe,
        })
    }

    /// Decides again what is kept, for a machine with so much memory that this process has it to itself; a budget of
    /// the recipe stays.
    ///
    /// # Errors
    /// As [`memory::plan`].
    pub fn on_a_machine_with(&mut self, bytes: u64) -> anyhow::Result<()> {
        let Self { recipe, spec, adapted, lengths, frozen, .. } = self;
        self.activations = memory::plan(recipe, spec, adapted, *lengths, frozen.total(), Some(bytes))?;
        Ok(())
    }

    /// Returns the number of trained values.
    pub fn trained_values(&self) -> u64 {
        let of = |one: &PlannedModule| {
            let sides = one.module.in_features as u64 + one.module.out_features as u64;
            sides.saturating_mul(one.rank as u64)
        };
        self.adapted.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Returns how many of them are of the factors `A`.
    pub fn input_values(&self) -> u64 {
        let of = |one: &PlannedModule| (one.module.in_features as u64).saturating_mul(one.rank as u64);
        self.adapted.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Returns the ranks of the run.
    pub fn ranks(&self) -> u64 {
        match self.recipe.parallel.data {
            RankCount::Auto => 1,
            RankCount::Exactly(ranks) => ranks,
        }
    }

    /// Returns what its ranks send.
    pub fn traffic(&self) -> Traffic {
        let mesh = Mesh::of_data(self.ranks() as usize);
        Traffic::new(mesh, self.recipe.train.accumulation() as usize, self.trained_values() as usize)
            .reduced(self.recipe.parallel.reduction)
    }
}

/// Whether a model's source is a folder with a configuration and no weights, which is enough for arithmetic.
pub fn is_configuration_only(source: &Location) -> Option<&Path> {
    let folder = source.path().filter(|path| path.join("config.json").is_file())?;
    let is_weights = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shard = name.starts_with("model") && name.contains(".safetensors");
        shard || [".gguf", ".bin"].iter().any(|end| name.ends_with(end))
    };
    let mut files = fs_err::read_dir(folder).ok()?;
    let none = files.all(|file| file.is_ok_and(|file| !is_weights(&file.path())));
    none.then_some(folder)
}
