//! The sizes that a plan is made of: of a run whose inputs were read, or of a configuration alone.

use std::path::Path;

use anyhow::Context;
use seedcorn_adapters::lora::PlannedModule;
use seedcorn_adapters::target::OUTPUT_HEAD;
use seedcorn_data::source::Resolver;
use seedcorn_kernels::gated_mlp;

use super::{Frozen, Parts};
use crate::build::{self, Prepared, precision};
use crate::log::available_memory_bytes;
use crate::memory;
use crate::model::family::Linear;
use crate::model::{LoadError, ModelSpec, Pass, Slice, slice};
use crate::parallel::{BatchSize, Mesh, ModelTraffic, Sent, Traffic};
use crate::recipe::{AdapterStart, Location, Quantize, Recipe};
use crate::weights::TensorInfo;

/// The sizes of a run; no values.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The recipe.
    pub recipe: Recipe,
    /// The model.
    pub spec: ModelSpec,
    /// Bytes of its weights.
    pub frozen: Frozen,
    /// The parts of them, where ranks keep a part each.
    pub parts: Option<Parts>,
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
            frozen: Frozen::of(base, precision(&recipe.model), recipe.parallel.tensor as usize),
            parts: parts(recipe, &base.spec, &|name| base.weights.info(name)),
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
        let (precision, tensor) = (precision(&recipe.model), recipe.parallel.tensor as usize);
        slice::check(&spec, tensor, precision.quantize == Quantize::Nf4).map_err(LoadError::from)?;
        let frozen = Frozen::of_largest(&spec, precision, tensor, &|_| None);
        let lengths = [recipe.data.max_length as usize, usize::MAX];
        let available = available_memory_bytes();
        let activations = memory::plan(&recipe, &spec, &adapted, lengths, frozen.total(), available)?;
        let evaluation = [recipe.eval.as_ref().map_or(0, |_| activations.tokens), 0];
        Ok(Self {
            parts: parts(&recipe, &spec, &|_| None),
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

    /// Takes the weights again after a change of the recipe, of shapes alone.
    pub(super) fn with_shapes(&mut self) {
        let tensor = self.mesh().tensor;
        self.frozen = Frozen::of_largest(&self.spec, precision(&self.recipe.model), tensor, &|_| None);
        self.parts = parts(&self.recipe, &self.spec, &|_| None);
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

    /// Returns how the ranks of the run are laid out.
    pub fn mesh(&self) -> Mesh {
        self.recipe.parallel.mesh()
    }

    /// Returns the ranks of the run.
    pub fn ranks(&self) -> u64 {
        self.mesh().ranks() as u64
    }

    /// Returns the trained values that every slice of the model uses, and those that each has for itself.
    pub fn values_of_slices(&self) -> [u64; 2] {
        let tensor = self.mesh().tensor as u64;
        let mut values = [0u64; 2];
        for one in &self.adapted {
            let rank = one.rank as u64;
            let sides = [one.module.in_features, one.module.out_features].map(|side| rank * side as u64);
            // `A` of a layer that is cut by rows is whole, and so is `B` of one that is cut by columns.
            let name = one.module.name.rsplit('.').next();
            let by_columns = [Linear::O, Linear::Down].iter().any(|linear| Some(linear.name()) == name);
            let [whole, cut] = if by_columns { [sides[1], sides[0]] } else { sides };
            values[0] = values[0].saturating_add(whole);
            values[1] = values[1].saturating_add(cut / tensor);
        }
        values
    }

    /// Returns the trained values that a rank has gradients of.
    pub fn values_of_rank(&self) -> u64 {
        match self.mesh().tensor {
            1 => self.trained_values(),
            _ => self.values_of_slices().into_iter().fold(0, u64::saturating_add),
        }
    }

    /// Returns what decides the bytes between the ranks that hold one model together; nothing where each has a whole one.
    pub fn model_traffic(&self) -> Option<ModelTraffic> {
        if self.mesh().tensor == 1 {
            return None;
        }
        let (spec, recipe) = (memory::widest(&self.spec, &self.recipe), &self.recipe);
        let shape = [spec.hidden_size, spec.intermediate_size];
        let light = gated_mlp::is_fused(self.activations.tokens, shape, precision(&recipe.model).compute)
            && recipe.adapter.dropout == 0.0
            && !spec.mlp_bias;
        let again = if light { 0 } else { spec.num_layers - self.activations.kept_blocks };
        let [shared, parts] = self.values_of_slices().map(|values| values as usize);
        Some(ModelTraffic { hidden: spec.hidden_size, layers: spec.num_layers, again, shared, parts })
    }

    /// Returns what a rank sends to those that hold one model together with it in a step, and in an evaluation.
    pub fn slices_sent(&self) -> [Vec<Sent>; 2] {
        let (mesh, Some(model)) = (self.mesh(), self.model_traffic()) else {
            return [Vec::new(), Vec::new()];
        };
        // The last rank has the largest parts of everything.
        let rank = mesh.ranks() - 1;
        let size = |tokens| BatchSize { tokens, targets: tokens };
        let all = |sent: Vec<Sent>, times: u64| {
            let many = |one: Sent| Sent { bytes: one.bytes.saturating_mul(times), ..one };
            sent.into_iter().map(many).collect::<Vec<_>>()
        };
        let each = self.recipe.train.accumulation() / mesh.data as u64;
        let mut step = all(model.of_micro_batch(mesh, rank, size(self.activations.tokens)), each);
        step.extend(model.of_update(mesh, rank));
        let [tokens, batches] = self.evaluation;
        let times = batches.div_ceil(mesh.data) as u64;
        let evaluation =
            if times > 0 { all(model.of_evaluated(mesh, rank, size(tokens)), times) } else { Vec::new() };
        [step, evaluation]
    }

    /// Returns what a rank sends of the weights in a step, and in an evaluation.
    pub fn weights_sent(&self) -> [Vec<Sent>; 2] {
        let Some(parts) = &self.parts else { return [Vec::new(), Vec::new()] };
        let tokens = self.activations.tokens as u64;
        let step = parts.most(self.recipe.train.accumulation(), tokens, Pass::Training);
        let [tokens, batches] = self.evaluation.map(|count| count as u64);
        let evaluation = if batches > 0 { parts.most(batches, tokens, Pass::Forward) } else { Vec::new() };
        [step, evaluation]
    }

    /// Returns what its ranks send to those with other shares of the data.
    pub fn traffic(&self) -> Traffic {
        Traffic::new(self.mesh(), self.recipe.train.accumulation() as usize, self.values_of_rank() as usize)
            .reduced(self.recipe.parallel.reduction)
    }
}

/// Cuts the weights, where the recipe wants it and there is more than one rank.
fn parts(recipe: &Recipe, spec: &ModelSpec, stored: &dyn Fn(&str) -> Option<TensorInfo>) -> Option<Parts> {
    let (count, of) = (recipe.parallel.parts(), recipe.parallel.tensor as usize);
    let slice = Slice { index: of - 1, of };
    (count > 1).then(|| Parts::new(spec, precision(&recipe.model), slice, stored, count))
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
