//! Reads files of records: `.jsonl`, `.json`, `.csv` and `.txt`, also packed (`.gz`).
//!
//! A file is read once; records are parsed when asked for, so that many threads can parse one file.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Place, Result};

/// Bytes that a packed file may unpack to: beyond what anyone keeps in memory as records.
const MAX_UNPACKED_BYTES: u64 = 16 << 30;

/// A file of records, kept as text until a record is asked for.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// The text, and of each line that is not empty its number and byte range.
    Lines(String, Vec<(u64, std::ops::Range<usize>)>),
    Values(Vec<Value>),
    /// The header, and each row with its line.
    Rows(Vec<String>, Vec<(u64, csv::StringRecord)>),
}

impl RecordFile {
    /// Reads the file at `path`; its ending says how.
    ///
    /// # Errors
    /// An unknown ending, bytes that are not UTF-8, JSON or CSV that cannot be read, no record at all.
    /// Lines of a `.jsonl` file are parsed by [`RecordFile::record`], not here.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, &path.to_string_lossy())
    }

    /// Reads a file that is called `name` where it comes from; that name's ending says how. A file whose own
    /// path has no such ending (one of a cache of blobs) is called by it in messages too.
    ///
    /// # Errors
    /// As [`RecordFile::open`].
    pub fn open_as(path: &Path, name: &str) -> Result<Self> {
        let called = if reader(path).is_ok() { path } else { Path::new(name) };
        // The ending is looked at first: a misnamed weight file is not read into memory.
        reader(called)?;
        if is_packed(called) {
            return Self::from_bytes(called, &unpacked(path)?);
        }
        Self::from_bytes(called, &fs_err::read(path)?)
    }

    /// Takes `bytes` as what stands in the file at `path`, unpacked.
    ///
    /// # Errors
    /// As [`RecordFile::open`].
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        let content = reader(path)?(path, bytes)?;
        let file = Self { path: path.to_owned(), content };
        if file.is_empty() { Err(Error::NoRecords { path: path.to_owned() }) } else { Ok(file) }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        match &self.content {
            Content::Lines(_, lines) => lines.len(),
            Content::Values(values) => values.len(),
            Content::Rows(_, rows) => rows.len(),
        }
    }

    /// True when there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Parses record `index` (from zero).
    ///
    /// # Errors
    /// A line that is not JSON, a record that is not an object.
    ///
    /// # Panics
    /// When `index` is not below [`RecordFile::len`].
    pub fn record(&self, index: usize) -> Result<Record> {
        match &self.content {
            Content::Lines(text, lines) => {
                let (number, range) = &lines[index];
                let value = serde_json::from_str(&text[range.clone()]).map_err(|fault| Error::BadJson {
                    path: self.path.clone(),
                    line: *number,
                    column: fault.column() as u64,
                    reason: json_reason(&fault),
                })?;
                Record::new(Place::line(&self.path, *number), value)
            }
            Content::Values(values) => {
                Record::new(Place::record(&self.path, index as u64 + 1), values[index].clone())
            }
            Content::Rows(header, rows) => {
                let (line, row) = &rows[index];
                let fields =
                    header.iter().zip(row).map(|(name, cell)| (name.clone(), Value::from(cell))).collect();
                Ok(Record { place: Place::line(&self.path, *line), fields })
            }
        }
    }
}

/// One record and where it stands.
#[derive(Debug, Clone)]
pub struct Record {
    /// File and line.
    pub place: Place,
    /// The record's own fields.
    pub fields: Map<String, Value>,
}

impl Record {
    /// Takes a JSON value as a record.
    ///
    /// # Errors
    /// A value that is not an object.
    pub fn new(place: Place, value: Value) -> Result<Self> {
        match value {
            Value::Object(fields) => Ok(Self { place, fields }),
            other => Err(Error::NotObject { place, got: kind(&other) }),
        }
    }

    /// Gives fields the names that a format has for them: `names` maps those to the record's own.
    #[must_use]
    pub fn named(mut self, names: &BTreeMap<String, String>) -> Self {
        for (ours, own) in names {
            match self.fields.get(own).cloned() {
                Some(value) => self.fields.insert(ours.clone(), value),
                // The record's own field of that name means something else.
                None => self.fields.shift_remove(ours),
            };
        }
        self
    }
}

/// Names the kind of a JSON value.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The reader's words without its own line and column: those are of the line, not of the file.
fn json_reason(fault: &serde_json::Error) -> String {
    let text = fault.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

type Reader = fn(&Path, &[u8]) -> Result<Content>;

/// Chooses the reader by the file's ending.
fn reader(path: &Path) -> Result<Reader> {
    let inner = if is_packed(path) { path.with_extension("") } else { path.to_owned() };
    match extension(&inner).as_str() {
        "jsonl" | "ndjson" => Ok(read_lines),
        "json" => Ok(read_json),
        "csv" => Ok(read_csv),
        "txt" => Ok(read_text),
        _ => Err(Error::UnknownExtension { path: path.to_owned() }),
    }
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
}

fn is_packed(path: &Path) -> bool {
    extension(path) == "gz"
}

/// Unpacks a gzip file, up to a size that no memory of records should have.
fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs_err::File::open(path)?;
    let mut reader = flate2::bufread::MultiGzDecoder::new(BufReader::new(file)).take(MAX_UNPACKED_BYTES + 1);
    reader.read_to_end(&mut bytes).map_err(|cause| Error::BadGzip { path: path.to_owned(), cause })?;
    if bytes.len() as u64 > MAX_UNPACKED_BYTES {
        return Err(Error::UnpackedTooLarge { path: path.to_owned(), limit: MAX_UNPACKED_BYTES });
    }
    Ok(bytes)
}

/// A text file is one record.
fn read_text(path: &Path, bytes: &[u8]) -> Result<Content> {
    let text = decode(path, bytes)?;
    let blank = text.trim().is_empty();
    let record = Value::Object(Map::from_iter([("text".to_owned(), Value::String(text))]));
    Ok(Content::Values(if blank { Vec::new() } else { vec![record] }))
}

/// Checks UTF-8 and takes a byte-order mark away.
fn decode(path: &Path, bytes: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(bytes).map_err(|fault| {
        let good = &bytes[..fault.valid_up_to()];
        let mut lines = good.split(|&byte| byte == b'\n');
        let line = lines.clone().count() as u64;
        let column = lines.next_back().map_or(0, <[u8]>::len) as u64 + 1;
        Error::NotUtf8 { path: path.to_owned(), line, column }
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

fn read_lines(path: &Path, bytes: &[u8]) -> Result<Content> {
    let text = decode(path, bytes)?;
    let mut lines = Vec::new();
    let mut start = 0;
    for (number, line) in text.split('\n').enumerate() {
        if !line.trim().is_empty() {
            lines.push((number as u64 + 1, start..start + line.len()));
        }
        start += line.len() + 1;
    }
    Ok(Content::Lines(text, lines))
}

fn read_json(path: &Path, bytes: &[u8]) -> Result<Content> {
    let text = decode(path, bytes)?;
    let value: Value = serde_json::from_str(&text).map_err(|fault| Error::BadJson {
        path: path.to_owned(),
        line: fault.line() as u64,
        column: fault.column() as u64,
        reason: json_reason(&fault),
    })?;
    match value {
        Value::Array(values) => Ok(Content::Values(values)),
        Value::Object(mut object) => {
            let arrays: Vec<String> =
                object.iter().filter(|(_, value)| value.is_array()).map(|(name, _)| name.clone()).collect();
            match (arrays.as_slice(), arrays.first().and_then(|name| object.remove(name))) {
                ([_], Some(Value::Array(values))) => Ok(Content::Values(values)),
                _ => Err(Error::NoRecordList { path: path.to_owned(), arrays }),
            }
        }
        other => Err(Error::NotRecords { path: path.to_owned(), got: kind(&other) }),
    }
}

fn read_csv(path: &Path, bytes: &[u8]) -> Result<Content> {
    let text = decode(path, bytes)?;
    let fault = |fault: &csv::Error| Error::BadCsv {
        path: path.to_owned(),
        line: fault.position().map_or(0, csv::Position::line),
        reason: csv_reason(fault),
    };
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let header: Vec<String> =
        reader.headers().map_err(|e| fault(&e))?.iter().map(|name| name.trim().to_owned()).collect();
    let mut rows = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|e| fault(&e))?;
        rows.push((row.position().map_or(0, csv::Position::line), row));
    }
    Ok(Content::Rows(header, rows))
}

/// A short reason: the position is said elsewhere.
fn csv_reason(fault: &csv::Error) -> String {
    match fault.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the header has {expected_len} fields, this row has {len}")
        }
        _ => fault.to_string(),
    }
}
