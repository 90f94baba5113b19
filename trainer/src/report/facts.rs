//! `report.json`: what a report shows that stands neither in the lock nor in `metrics.jsonl`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use seedcorn_data::{Sample, Statistics};
use serde::{Deserialize, Serialize};

use crate::build::{Prepared, precision};
use crate::checkpoint::atomic;
use crate::plan::Frozen;
use crate::sample::Shown;

/// Name of the file in a run's folder.
const FILE: &str = "report.json";
/// Bars of the histogram of lengths, at most.
const BARS: u64 = 25;
/// Some lines a source and an answer or two; more than this is not such a file.
const LIMIT_BYTES: u64 = 16 << 20;
/// Bytes of a trained value: itself, its gradient and two moments in f32.
const TRAINED_BYTES: u64 = 16;

/// The content of `report.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Every process of the run that trained, in order.
    pub starts: Vec<Start>,
    /// The model and the adapter.
    pub model: Model,
    /// Counts of the training sources.
    pub train: Vec<Statistics>,
    /// Counts of the held-out sources.
    pub eval: Vec<Statistics>,
    /// Lengths of the training samples.
    pub lengths: Histogram,
    /// What memory was planned for.
    pub memory: Memory,
    /// A held-out question with the model's answers, the earliest first.
    pub answers: Vec<Answer>,
}

/// A process that trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Steps that were done before.
    pub step: u64,
    /// Threads that it computed with.
    pub threads: usize,
}

/// What was trained, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Architecture, as `config.json` calls it.
    pub family: String,
    /// Blocks.
    pub layers: u64,
    /// Values of the frozen base.
    pub parameters: u64,
    /// Linear layers with an adapter.
    pub adapted: u64,
    /// Values of the adapter.
    pub trained: u64,
}

/// Lengths in tokens: bar `i` counts samples of more than `i * width` tokens, up to `(i + 1) * width`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Tokens a bar covers.
    pub width: u64,
    /// Samples of each bar.
    pub counts: Vec<u64>,
}

/// What memory was planned for, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The frozen weights as they are kept, estimated.
    pub weights: u64,
    /// The adapter, its gradient and its two moments.
    pub adapter: u64,
    /// What the blocks keep between the forward and the backward pass, estimated.
    pub activations: u64,
    /// The most that the blocks may keep, where a budget decided.
    pub budget: Option<u64>,
    /// Blocks of which everything is kept.
    pub kept_blocks: u64,
    /// Tokens of the largest micro-batch.
    pub tokens: u64,
}

/// A held-out question and the model's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Steps that were done.
    pub step: u64,
    /// The end of the prompt.
    pub question: String,
    /// The answer in the data.
    pub expected: String,
    /// The model's answer, greedy.
    pub answer: String,
}

/// The open file of a run.
#[derive(Debug)]
pub struct FactsFile {
    path: PathBuf,
    facts: Facts,
}

impl FactsFile {
    /// Describes a run in `folder` that continues after `step` (0 for a new run), of which it keeps what was said
    /// up to there.
    pub fn open(folder: &Path, prepared: &Prepared, step: u64) -> io::Result<FactsFile> {
        let mut facts = describe(prepared);
        if let Ok(Some(before)) = read(folder) {
            facts.keep(before, step);
        }
        facts.starts.push(Start { step, threads: rayon::current_num_threads() });
        let file = FactsFile { path: folder.join(FILE), facts };
        file.write()?;
        Ok(file)
    }

    /// Adds what the model answers after `step` steps, unless that is known.
    pub fn answer(&mut self, step: u64, shown: Option<&Shown>) -> io::Result<()> {
        let Some(shown) = shown.filter(|_| self.facts.answers.iter().all(|answer| answer.step != step))
        else {
            return Ok(());
        };
        let Shown { question, expected, answer } = shown.clone();
        self.facts.answers.push(Answer { step, question, expected, answer });
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&self.facts).map_err(io::Error::other)?;
        text.push(b'\n');
        atomic::write_file(&self.path, &text)
    }
}

impl Facts {
    /// Takes over what processes before said of the steps up to `step`; nothing for a run that begins again.
    fn keep(&mut self, before: Facts, step: u64) {
        self.starts.extend(before.starts.into_iter().filter(|start| start.step < step));
        self.answers.extend(before.answers.into_iter().filter(|answer| answer.step <= step && step > 0));
    }
}

/// Reads the file of a run's folder; nothing where there is none, or none that is whole.
pub(super) fn read(folder: &Path) -> io::Result<Option<Facts>> {
    let mut text = String::new();
    match fs_err::File::open(folder.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?.take(LIMIT_BYTES).read_to_string(&mut text)?,
    };
    Ok(serde_json::from_str(&text).ok())
}

fn describe(prepared: &Prepared) -> Facts {
    let Prepared { recipe, base, dataset, memory, .. } = prepared;
    let spec = &base.spec;
    let parameters: usize = spec.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let trained: usize = prepared.weights.iter().map(|one| one.a.len() + one.b.len()).sum();
    Facts {
        model: Model {
            family: spec.model_type.clone(),
            layers: spec.num_layers as u64,
            parameters: parameters as u64,
            adapted: prepared.weights.len() as u64,
            trained: trained as u64,
        },
        train: dataset.statistics().to_vec(),
        eval: dataset.eval().iter().map(|source| source.statistics.clone()).collect(),
        lengths: Histogram::of(dataset.samples()),
        memory: Memory {
            weights: Frozen::of(&prepared.base, precision(&recipe.model), recipe.parallel.tensor as usize)
                .total(),
            adapter: TRAINED_BYTES * trained as u64,
            activations: memory.bytes,
            budget: memory.budget,
            kept_blocks: memory.kept_blocks as u64,
            tokens: memory.tokens as u64,
        },
        ..Facts::default()
    }
}

impl Histogram {
    /// Counts lengths in bars of a round width.
    fn of(samples: &[Sample]) -> Histogram {
        let lengths = || samples.iter().map(|sample| sample.tokens() as u64);
        let longest = lengths().max().unwrap_or(0);
        let widths = (0..18).flat_map(|power| [1, 2, 5].map(|digit| digit * 10u64.pow(power)));
        let width = widths.into_iter().find(|width| longest.div_ceil(*width) <= BARS).unwrap_or(u64::MAX);
        let mut counts = vec![0; longest.div_ceil(width) as usize];
        for length in lengths() {
            // No sample is empty; one that were would count in the first bar.
            counts[(length.max(1).div_ceil(width) - 1) as usize] += 1;
        }
        Histogram { width, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_fall_into_round_bars() {
        let sample = |tokens: usize| Sample { input_ids: vec![0; tokens], ..Sample::default() };
        let of = |lengths: &[usize]| {
            Histogram::of(&lengths.iter().map(|&tokens| sample(tokens)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[1, 2, 2]), Histogram { width: 1, counts: vec![1, 2] });
        let found = of(&[20, 21, 40, 41, 498]);
        assert_eq!((found.width, found.counts.len()), (20, 25));
        assert_eq!((found.counts[0], found.counts[1], found.counts[2], found.counts[24]), (1, 2, 1, 1));
        assert_eq!(of(&[]), Histogram { width: 1, counts: vec![] });
        let long = of(&[1, 1_000_000]);
        assert_eq!((long.width, long.counts.len(), long.counts.iter().sum::<u64>()), (50_000, 20, 2));
    }

    #[test]
    fn the_first_answer_outlives_an_interruption() {
        let folder = tempfile::tempdir().expect("temp folder");
        let shown = |answer: &str| Shown {
            question: "q".to_owned(),
            expected: "e".to_owned(),
            answer: answer.to_owned(),
        };
        let start = |step| Start { step, threads: 1 };
        let mut file = FactsFile {
            path: folder.path().join(FILE),
            facts: Facts { starts: vec![start(0)], ..Facts::default() },
        };
        file.answer(0, Some(&shown("before"))).expect("written");
        file.answer(4, None).expect("nothing to write");
        file.answer(9, Some(&shown("too late"))).expect("written");
        let before = read(folder.path()).expect("read").expect("there");
        let mut again = FactsFile { path: file.path, facts: Facts::default() };
        again.facts.keep(before.clone(), 4);
        again.answer(4, Some(&shown("middle"))).expect("written");
        again.answer(0, Some(&shown("not this"))).expect("known");
        let answers = again.facts.answers.iter().map(|answer| (answer.step, answer.answer.as_str()));
        assert_eq!(answers.collect::<Vec<_>>(), [(0, "before"), (4, "middle")]);
        assert_eq!(again.facts.starts, [start(0)]);
        let mut anew = Facts::default();
        anew.keep(before, 0);
        assert_eq!(anew, Facts::default());
    }

    #[test]
    fn a_damaged_file_is_none() {
        let folder = tempfile::tempdir().expect("temp folder");
        assert_eq!(read(folder.path()).expect("read"), None);
        fs_err::write(folder.path().join(FILE), "{\"starts\": 3").expect("written");
        assert_eq!(read(folder.path()).expect("read"), None);
        let facts = Facts { starts: vec![Start { step: 3, threads: 2 }], ..Facts::default() };
        fs_err::write(folder.path().join(FILE), serde_json::to_vec(&facts).expect("JSON")).expect("written");
        assert_eq!(read(folder.path()).expect("read"), Some(facts));
    }
}
