//! `metrics.jsonl` read back.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SourceRow;

/// A step: one update of the adapter. The fields are those of [`super::StepRow`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Update {
    pub(crate) step: u64,
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
    pub(crate) lr: f64,
    pub(crate) trained_tokens: u64,
    pub(crate) tokens_per_second: f64,
    pub(crate) seconds: Option<f64>,
    pub(crate) peak_memory_bytes: Option<u64>,
    pub(crate) device_memory_bytes: Option<u64>,
    pub(crate) adapter_sha256: Option<String>,
}

/// An evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Eval {
    pub(crate) step: u64,
    #[serde(rename = "eval_loss")]
    pub(crate) loss: f64,
    #[serde(rename = "eval_tokens")]
    pub(crate) tokens: u64,
    #[serde(default, rename = "eval_sources")]
    pub(crate) sources: Vec<SourceRow>,
}

/// Every row, by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub(crate) steps: Vec<Update>,
    pub(crate) evals: Vec<Eval>,
    /// Lines that are neither.
    pub(crate) unread: u64,
}

/// Either; a step has more fields, so it is tried first.
#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Update(Update),
    Eval(Eval),
}

impl Rows {
    /// Reads the rows of a run; none where there is no file. Of rows for one step the last counts.
    pub(crate) fn read(path: &Path) -> io::Result<Rows> {
        let file = match fs_err::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Rows::default()),
            file => file?,
        };
        let (mut steps, mut evals, mut unread) = (BTreeMap::new(), BTreeMap::new(), 0);
        for line in BufReader::new(file).split(b'\n') {
            match serde_json::from_slice(&line?) {
                Ok(Row::Update(row)) => drop(steps.insert(row.step, row)),
                Ok(Row::Eval(row)) => drop(evals.insert(row.step, row)),
                Err(_) => unread += 1,
            }
        }
        Ok(Rows { steps: steps.into_values().collect(), evals: evals.into_values().collect(), unread })
    }

    /// Returns one number of every step that has it.
    pub(crate) fn values(&self, value: impl Fn(&Update) -> Option<f64>) -> Vec<(u64, f64)> {
        self.steps.iter().filter_map(|row| Some((row.step, value(row)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_the_last_of_a_step_counts() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("metrics.jsonl");
        assert_eq!(Rows::read(&path).expect("none"), Rows::default());
        let step = |step: u64, loss: f64| {
            format!(
                "{{\"step\":{step},\"loss\":{loss},\"grad_norm\":1.0,\"lr\":0.1,\"trained_tokens\":9,\
                 \"tokens_per_second\":5.0,\"cpu_seconds\":null,\"peak_memory_bytes\":7}}\n"
            )
        };
        let eval = "{\"step\":0,\"eval_loss\":2.0,\"eval_perplexity\":7.4,\"eval_tokens\":3}\n";
        let text =
            [step(2, 4.0), eval.to_owned(), step(1, 3.0), step(2, 5.0), "\u{0}\n{\"step\":4".to_owned()];
        fs_err::write(&path, text.concat()).expect("written");
        let rows = Rows::read(&path).expect("read");
        assert_eq!(rows.values(|row| Some(row.loss)), [(1, 3.0), (2, 5.0)]);
        assert_eq!(rows.values(|row| row.seconds), []);
        assert_eq!((rows.evals.len(), rows.evals[0].loss, rows.unread), (1, 2.0, 2));
    }
}
