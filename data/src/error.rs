//! What can go wrong between a file of records and a micro-batch.
//!
//! Every fault of a record carries its [`Place`], so a message always says which file and line to open.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a record stands: a file and a line (or a record number, in files without lines).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// File the record was read from.
    pub path: PathBuf,
    /// `line` or `record`.
    pub unit: &'static str,
    /// Counted from one.
    pub number: u64,
}

impl Place {
    /// Names the line `number` (from one) of `path`.
    pub fn line(path: &Path, number: u64) -> Self {
        Self { path: path.to_owned(), unit: "line", number }
    }

    /// Names the record `number` (from one) of `path`.
    pub fn record(path: &Path, number: u64) -> Self {
        Self { path: path.to_owned(), unit: "record", number }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` {} {}", self.path.display(), self.unit, self.number)
    }
}

/// Writes names as `` `a`, `b` ``.
pub(crate) fn quoted<I: IntoIterator<Item = S>, S: fmt::Display>(names: I) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Faults of the data path. [`Error::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Files
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file's name ends in nothing we read.
    #[error("cannot tell the kind of `{path}` from its name")]
    UnknownExtension {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be unpacked.
    #[error("`{}` cannot be unpacked as gzip", path.display())]
    BadGzip {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The file unpacks to more than is read.
    #[error("`{}` unpacks to more than {limit} bytes", path.display())]
    UnpackedTooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes.
        limit: u64,
    },
    /// The file's bytes are not UTF-8.
    #[error("`{path}` line {line} column {column}: not UTF-8")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first bad byte.
        line: u64,
        /// Byte column of the first bad byte.
        column: u64,
    },
    /// A line or a file is not JSON.
    #[error("`{path}` line {line} column {column}: {reason}")]
    BadJson {
        /// The file.
        path: PathBuf,
        /// Line of the fault.
        line: u64,
        /// Column of the fault.
        column: u64,
        /// What the JSON reader said.
        reason: String,
    },
    /// A row cannot be read as CSV.
    #[error("`{path}` line {line}: {reason}")]
    BadCsv {
        /// The file.
        path: PathBuf,
        /// Line of the fault, 0 when unknown.
        line: u64,
        /// What the CSV reader said.
        reason: String,
    },
    /// A JSON file has no list of records, or more than one.
    #[error("`{path}` is an object with {} array fields: {}", arrays.len(), quoted(arrays))]
    NoRecordList {
        /// The file.
        path: PathBuf,
        /// Names of the fields that hold an array.
        arrays: Vec<String>,
    },
    /// A JSON file holds neither an array nor an object.
    #[error("`{path}`: expected an array of objects, got {got}")]
    NotRecords {
        /// The file.
        path: PathBuf,
        /// Kind of the top-level value.
        got: &'static str,
    },
    /// A file without records.
    #[error("`{path}` holds no records")]
    NoRecords {
        /// The file.
        path: PathBuf,
    },

    // Records
    /// A record is not an object.
    #[error("{place}: expected an object, got {got}")]
    NotObject {
        /// The record.
        place: Place,
        /// Kind of the value found.
        got: &'static str,
    },
    /// A record lacks a field of its format.
    #[error("{place}: format `{format}` needs {}; fields here: {}", quoted(fields), quoted(present))]
    MissingField {
        /// The record.
        place: Place,
        /// The format asked for.
        format: &'static str,
        /// The field, or the fields of which one is needed.
        fields: Vec<&'static str>,
        /// Fields the record has.
        present: Vec<String>,
    },
    /// A field holds another type.
    #[error("{place}: `{field}`: expected {expected}, got {got}")]
    WrongType {
        /// The record.
        place: Place,
        /// The field.
        field: String,
        /// What the format asks for.
        expected: &'static str,
        /// Kind of the value found.
        got: &'static str,
    },
    /// A message with a role we do not know.
    #[error("{place}: unknown role `{role}` in message {message}; known: {}", quoted(*known))]
    UnknownRole {
        /// The record.
        place: Place,
        /// Number of the message, from one.
        message: usize,
        /// The role found.
        role: String,
        /// Roles of this dialect.
        known: &'static [&'static str],
    },
    /// `labels` and `input_ids` differ in length.
    #[error("{place}: {ids} `input_ids` but {labels} `labels`")]
    LabelCount {
        /// The record.
        place: Place,
        /// Number of ids.
        ids: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A token id outside the vocabulary.
    #[error("{place}: `{field}` holds {id}, the vocabulary has {vocab} tokens")]
    IdOutOfRange {
        /// The record.
        place: Place,
        /// `input_ids` or `labels`.
        field: &'static str,
        /// The id found.
        id: i64,
        /// Size of the vocabulary.
        vocab: usize,
    },

    // Template and masks
    /// The chat template cannot be compiled.
    #[error("the chat template is not valid: {reason}")]
    BadTemplate {
        /// What the template engine said.
        reason: String,
    },
    /// The tokenizer has no chat template.
    #[error("{place}: format `chat` needs a chat template, and the tokenizer has none")]
    NoTemplate {
        /// The first record that needs it.
        place: Place,
    },
    /// The template called `raise_exception`.
    #[error("{place}: the chat template refuses this conversation: {message}")]
    TemplateRaised {
        /// The record.
        place: Place,
        /// The template's own words.
        message: String,
    },
    /// The template failed while rendering.
    #[error("{place}: the chat template failed: {reason}")]
    TemplateFailed {
        /// The record.
        place: Place,
        /// What the template engine said.
        reason: String,
    },
    /// An assistant turn cannot be found in the rendered text.
    #[error("{place}: cannot tell which part of the rendered text is assistant turn {turn}")]
    SpanNotFound {
        /// The record.
        place: Place,
        /// Number of the message, from one.
        turn: usize,
    },

    // Tokenizer
    /// A tokenizer file cannot be read.
    #[error("{what} is not valid: {reason}")]
    BadTokenizer {
        /// Which file or part.
        what: String,
        /// What its reader said.
        reason: String,
    },
    /// A special token is not in the vocabulary.
    #[error("{role} token `{token}` is not in the vocabulary")]
    UnknownSpecialToken {
        /// `bos`, `eos`, `pad` or `unk`.
        role: &'static str,
        /// Its text.
        token: String,
    },
    /// A text cannot be encoded or ids cannot be decoded.
    #[error("the tokenizer failed: {reason}")]
    Tokenize {
        /// What the tokenizer said.
        reason: String,
    },
    /// A text sample needs an end-of-sequence token.
    #[error("{place}: format `{format}` ends each sample with EOS, and the tokenizer has none")]
    NoEos {
        /// The first record that needs it.
        place: Place,
        /// The format asked for.
        format: &'static str,
    },
    /// A format that needs a tokenizer was asked for without one.
    #[error("format `{format}` needs a tokenizer")]
    NoTokenizer {
        /// The format asked for.
        format: &'static str,
    },

    // Datasets and batches
    /// Nothing in the training data is trained.
    #[error(
        "nothing is trained in source `{name}`: {records} records, {dropped_untrained} without a trained token, \
         {dropped_long} too long, {dropped_truncated} truncated before their first target"
    )]
    NothingTrained {
        /// Name of the source.
        name: String,
        /// Records read.
        records: u64,
        /// Samples without a trained token.
        dropped_untrained: u64,
        /// Samples dropped for their length.
        dropped_long: u64,
        /// Samples whose targets were all cut off.
        dropped_truncated: u64,
    },
    /// No training source, or weights that leave no sample.
    #[error("the data has no training sample in epoch {epoch}")]
    EmptyEpoch {
        /// The epoch.
        epoch: u64,
    },
    /// A weight that is not a positive number.
    #[error("source `{name}`: weight {weight} is not a number in (0, 1000]")]
    BadWeight {
        /// Name of the source.
        name: String,
        /// The weight found.
        weight: f64,
    },
    /// The held-out split leaves nothing to train on.
    #[error("source `{name}`: the held-out split takes {held_out} of {records} records")]
    SplitTooLarge {
        /// Name of the source.
        name: String,
        /// Records asked for.
        held_out: u64,
        /// Records there are.
        records: u64,
    },
    /// A fraction outside [0, 1).
    #[error("held-out fraction {fraction} is not in [0, 1)")]
    BadFraction {
        /// The fraction found.
        fraction: f64,
    },
    /// A setting that cannot be zero, or is too small to train on.
    #[error("`{name}` is {got}, the least is {least}")]
    TooSmall {
        /// The setting.
        name: &'static str,
        /// The value found.
        got: usize,
        /// The least value.
        least: usize,
    },
    /// A setting beyond what one step can hold.
    #[error("`{name}` is {got}, the most is {most}")]
    TooLarge {
        /// The setting.
        name: &'static str,
        /// The value found.
        got: usize,
        /// The largest value.
        most: usize,
    },
    /// `batch_size` is not a multiple of `micro_batch`.
    #[error("`batch_size` ({batch_size}) is not a multiple of `micro_batch` ({micro_batch})")]
    NotDivisible {
        /// Sequences per optimizer step.
        batch_size: usize,
        /// Sequences per micro-batch.
        micro_batch: usize,
    },
    /// A sample longer than a pack may be.
    #[error("a sample has {length} tokens, a pack holds {max_length}")]
    SampleTooLong {
        /// Tokens of the sample.
        length: usize,
        /// Tokens of a pack.
        max_length: usize,
    },
    /// An optimizer step without a trained token.
    #[error("step {step} holds no trained token")]
    StepUntrained {
        /// The step, from zero.
        step: u64,
    },
    /// A cursor that does not belong to this stream.
    #[error("the data cursor does not fit this data: {reason}")]
    BadCursor {
        /// Both numbers of the mismatch.
        reason: String,
    },
}

impl Error {
    /// Says what to do next, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownExtension { .. } => "use a file that ends in `.jsonl`, `.json`, `.csv` or `.txt`, or in one of these and `.gz`".into(),
            Self::BadGzip { .. } => "fetch or pack the file again".into(),
            Self::UnpackedTooLarge { .. } => "split the file into several sources".into(),
            Self::NotUtf8 { .. } => "convert the file to UTF-8".into(),
            Self::BadJson { .. } | Self::BadCsv { .. } => "mend this line, or remove it".into(),
            Self::NoRecords { .. } => "point the source at a file with records".into(),
            Self::NotRecords { .. } | Self::NotObject { .. } => {
                "a record is an object like `{\"text\": \"...\"}`".into()
            }
            Self::UnknownRole { known, .. } => {
                format!("rename the role to one of {}", quoted(*known))
            }
            Self::WrongType { .. } | Self::LabelCount { .. } => "mend this record, or remove it".into(),
            Self::IdOutOfRange { .. } => "tokenize the data with this model's own tokenizer".into(),
            Self::BadTemplate { .. } | Self::TemplateFailed { .. } => {
                "mend the template (`chat_template.jinja`, or `chat_template` in `tokenizer_config.json`), or \
                 use one of the formats `instruction`, `completion`, `text`"
                    .into()
            }
            Self::BadTokenizer { .. } | Self::UnknownSpecialToken { .. } => {
                "fetch the model's tokenizer files again".into()
            }
            Self::NoRecordList { .. } => {
                "keep one array of objects, or write one object a line (`.jsonl`)".into()
            }
            Self::MissingField { .. } => {
                "set `format` to what the fields here are of, or map the fields with `fields`".into()
            }
            Self::NoTemplate { .. } => {
                "use a model with a chat template, or one of the formats `instruction`, `completion`, `text`"
                    .into()
            }
            Self::TemplateRaised { .. } => "change the record, or leave it out".into(),
            Self::SpanNotFound { .. } => "use `train_on = \"all\"`, or another template".into(),
            Self::NoEos { .. } => "name an `eos_token` in the tokenizer's configuration".into(),
            Self::NothingTrained { dropped_long, dropped_truncated, .. }
                if dropped_long + dropped_truncated > 0 =>
            {
                "raise `max_length`".into()
            }
            Self::NothingTrained { .. } => {
                "check the roles in the file and `train_on`; `seedcorn inspect` shows what is trained".into()
            }
            Self::EmptyEpoch { .. } => "raise the weight of a source, or hold out less".into(),
            Self::SplitTooLarge { .. } => "hold out fewer records".into(),
            Self::NoTokenizer { .. } => "use format `tokens`, or a model with a `tokenizer.json`".into(),
            Self::NotDivisible { batch_size, micro_batch } => divisible_hint(*batch_size, *micro_batch),
            Self::SampleTooLong { .. } => "load the data with the same `max_length`".into(),
            Self::BadCursor { .. } => "resume with the recipe and data the checkpoint was made with".into(),
            _ => return None,
        })
    }
}

/// Names the multiples of `micro_batch` on both sides of `batch_size`.
fn divisible_hint(batch_size: usize, micro_batch: usize) -> String {
    let below = batch_size.checked_div(micro_batch).map_or(0, |times| times * micro_batch);
    if below == 0 {
        return format!("use `batch_size` {micro_batch}, or `micro_batch` {batch_size}");
    }
    format!("use `batch_size` {below} or {}", below.saturating_add(micro_batch))
}

/// Result of the data path.
pub type Result<T, E = Error> = std::result::Result<T, E>;
