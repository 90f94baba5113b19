//! A temporary folder with a recipe, and runs of it in this process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use seedcorn::build::{Prepared, prepare};
use seedcorn::log::Verbosity;
use seedcorn::recipe;
use seedcorn::run::{Finished, run};
use seedcorn::stop::Stop;
use seedcorn_data::source::Resolver;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::model::{Values, fixture, tensors};
use crate::wide;

/// `(input_ids, labels)` of a sample.
pub type Tokens = (Vec<u32>, Vec<i32>);

/// What differs between two runs of the same numbers.
const MEASURED: [&str; 5] =
    ["tokens_per_second", "seconds", "cpu_seconds", "peak_memory_bytes", "device_memory_bytes"];
/// Ids of the tiny models.
const VOCABULARY: u64 = 256;

/// A folder that is removed when the test is over.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// Makes a folder with `recipe.toml` and `data.jsonl`, for the tiny model `model`, or for one of
    /// [`wide::MADE`].
    ///
    /// # Panics
    /// When it cannot be written, which fails the test that asks.
    pub fn new(model: &str, samples: &[Tokens]) -> Self {
        if !wide::MADE.contains(&model) {
            return Self::with_recipe(&recipe_text(&fixture("models").join(model)), samples);
        }
        let scratch = Self::with_recipe(&recipe_text(Path::new(model)), samples);
        wide::write(&scratch.path(model), model, 1);
        scratch
    }

    /// Makes a folder with this recipe and `data.jsonl`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn with_recipe(recipe: &str, samples: &[Tokens]) -> Self {
        let scratch = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        scratch.write("recipe.toml", recipe);
        let line = |(ids, labels): &Tokens| json!({ "input_ids": ids, "labels": labels }).to_string() + "\n";
        scratch.write("data.jsonl", samples.iter().map(line).collect::<String>());
        scratch
    }

    /// Returns the path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs_err::write(self.path(name), content).expect("written");
    }

    /// Reads the recipe, with `--set` overrides, and prepares its run into the folder `output`.
    ///
    /// # Errors
    /// Whatever the command would report.
    pub fn prepare(&self, output: &str, overrides: &[&str]) -> anyhow::Result<Prepared> {
        let output = format!("output={}", self.path(output).display());
        let overrides: Vec<String> =
            overrides.iter().map(|text| (*text).to_owned()).chain([output]).collect();
        let mut resolver = Resolver::from_env();
        resolver.offline = true;
        resolver.progress = false;
        prepare(recipe::load(&self.path("recipe.toml"), &overrides)?, &resolver)
    }

    /// Trains into the folder `output`.
    ///
    /// # Errors
    /// Whatever the command would report.
    pub fn train(&self, output: &str, overrides: &[&str]) -> anyhow::Result<Finished> {
        run(&self.prepare(output, overrides)?, false, Verbosity::Quiet, &Stop::default())
    }

    /// Continues a run.
    ///
    /// # Errors
    /// Whatever the command would report.
    pub fn resume(&self, output: &str, overrides: &[&str]) -> anyhow::Result<Finished> {
        run(&self.prepare(output, overrides)?, true, Verbosity::Quiet, &Stop::default())
    }

    /// Reads what a run must give bit for bit: both files of its adapter, and its metrics.
    ///
    /// # Panics
    /// When the run did not finish.
    pub fn result(&self, output: &str) -> (Vec<Vec<u8>>, Vec<Value>) {
        let adapter = self.path(output).join("adapter");
        let files = ["adapter_config.json", "adapter_model.safetensors"];
        let read = |name| fs_err::read(adapter.join(name)).expect("an exported adapter");
        (files.map(read).into(), self.metrics(output))
    }

    /// Reads the rows of `metrics.jsonl` without what was measured.
    ///
    /// # Panics
    /// When the file is not there or a line is not JSON.
    pub fn metrics(&self, output: &str) -> Vec<Value> {
        let text = fs_err::read_to_string(self.path(output).join("metrics.jsonl")).expect("metrics");
        text.lines()
            .map(|line| {
                let mut row: Value = serde_json::from_str(line).expect("a row");
                let fields = row.as_object_mut().expect("an object");
                fields.retain(|key, _| !MEASURED.contains(&key.as_str()));
                row
            })
            .collect()
    }

    /// Returns what was measured at the last step, such as `peak_memory_bytes`.
    ///
    /// # Panics
    /// When there are no metrics, or none of this name.
    pub fn measured(&self, output: &str, key: &str) -> f64 {
        let text = fs_err::read_to_string(self.path(output).join("metrics.jsonl")).expect("metrics");
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row"));
        rows.filter_map(|row| row.get(key)?.as_f64()).next_back().expect("a measured step")
    }

    /// Reads the tensors of a run's adapter.
    ///
    /// # Panics
    /// When the run did not finish.
    pub fn adapter(&self, output: &str) -> BTreeMap<String, Values> {
        tensors(&self.path(output).join("adapter/adapter_model.safetensors"))
    }

    /// Returns one number of every step, such as `loss`.
    ///
    /// # Panics
    /// When there are no metrics.
    pub fn steps(&self, output: &str, key: &str) -> Vec<f64> {
        self.metrics(output).iter().filter_map(|row| row.get(key)?.as_f64()).collect()
    }
}

/// Returns a recipe that trains `data.jsonl`.
fn recipe_text(model: &Path) -> String {
    format!(
        "version = 1\noutput = 'run'\n\
         [model]\nsource = '{}'\n\
         [adapter]\nrank = 4\nalpha = 8\n\
         [data]\nmax_length = 128\npacking = false\n\
         [[data.train]]\nsource = 'data.jsonl'\nformat = 'tokens'\n\
         [train]\nbatch_size = 8\nmicro_batch = 2\nsteps = 4\nseed = 3\n\
         [optimizer]\nlr = 1e-2\n\
         [checkpoint]\nevery_steps = 0\n",
        model.display()
    )
}

/// Makes samples of `tokens` lengths, with random ids and random parts that are not trained.
pub fn samples(count: usize, tokens: std::ops::Range<u64>, seed: u64) -> Vec<Tokens> {
    let mut random = Random(seed);
    let mut sample = || {
        let length = random.below(tokens.end - tokens.start) + tokens.start;
        let ids: Vec<u32> = (0..length).map(|_| random.below(VOCABULARY) as u32).collect();
        let mut labels: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        // The last token at least is trained.
        let masked = random.below(length) as usize;
        labels[..masked].fill(-100);
        (ids, labels)
    };
    (0..count).map(|_| sample()).collect()
}

/// SplitMix64: numbers that are the same everywhere, for inputs of tests.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Returns the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// Returns a number in `[-1, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
