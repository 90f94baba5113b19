//! Loads sources: files in, samples and counts out.

use rayon::prelude::*;

use super::render::{Made, Renderer};
use super::{Dataset, EvalSource, LoadOptions, OnLong, SourceSpec, Split, Statistics};
use crate::batch::Sample;
use crate::error::{Error, Result};
use crate::format::{Format, RecordFile};
use crate::order::{Share, permutation};
use crate::tokenizer::Tokenizer;

/// Fewest tokens of a sample that trains anything: one to read, one to predict.
const LEAST_LENGTH: usize = 2;
/// Largest weight: an epoch's order stays of the data's own size class.
const MOST_WEIGHT: f64 = 1000.0;

impl Dataset {
    /// Reads, renders and tokenizes all sources, on all threads of the current rayon pool.
    ///
    /// The result depends on the files, `tokenizer` and `options` only. A tokenizer is needed for every
    /// format but `tokens`.
    ///
    /// # Errors
    /// The first fault of the first faulty source; weights, fractions and counts out of range; a source
    /// in which nothing is trained.
    pub fn load(
        sources: &[SourceSpec],
        tokenizer: Option<&Tokenizer>,
        options: &LoadOptions,
    ) -> Result<Self> {
        check(sources, options)?;
        let vocab = options.vocab_size.or_else(|| tokenizer.map(Tokenizer::vocab_size));
        let loader = Loader { tokenizer, options, vocab: vocab.unwrap_or(i32::MAX as usize) };
        let mut dataset =
            Self { samples: Vec::new(), shares: Vec::new(), statistics: Vec::new(), eval: Vec::new() };
        for (number, spec) in sources.iter().enumerate() {
            let made = loader.make(spec, number as u32)?;
            let mut held = held_out(spec, number as u64, made.len(), options)?;
            let (mut train, mut eval) = (Vec::new(), Vec::new());
            for (index, one) in made.into_iter().enumerate() {
                if held.next_if_eq(&index).is_some() { eval.push(one) } else { train.push(one) }
            }
            if !eval.is_empty() {
                let (samples, statistics) = loader.keep(&format!("{} (held out)", spec.name), eval)?;
                dataset.eval.push(EvalSource { name: spec.name.clone(), samples, statistics });
            }
            let (samples, statistics) = loader.keep(&spec.name, train)?;
            let start = dataset.samples.len();
            dataset.samples.extend(samples);
            dataset.shares.push(Share { samples: start..dataset.samples.len(), weight: spec.weight });
            dataset.statistics.push(statistics);
        }
        for (number, spec) in options.eval.iter().enumerate() {
            let made = loader.make(spec, (sources.len() + number) as u32)?;
            let (samples, statistics) = loader.keep(&spec.name, made)?;
            dataset.eval.push(EvalSource { name: spec.name.clone(), samples, statistics });
        }
        Ok(dataset)
    }
}

fn check(sources: &[SourceSpec], options: &LoadOptions) -> Result<()> {
    if options.max_length < LEAST_LENGTH {
        return Err(Error::TooSmall { name: "max_length", got: options.max_length, least: LEAST_LENGTH });
    }
    if let Split::Fraction(fraction) = options.split
        && !(0.0..1.0).contains(&fraction)
    {
        return Err(Error::BadFraction { fraction });
    }
    for SourceSpec { name, weight, .. } in sources {
        if !(*weight > 0.0 && *weight <= MOST_WEIGHT) {
            return Err(Error::BadWeight { name: name.clone(), weight: *weight });
        }
    }
    Ok(())
}

/// Records of a source that are held out, ascending. Drawn among all records, whatever their length, so
/// that another `max_length` does not move records from one side to the other.
fn held_out(
    spec: &SourceSpec,
    source: u64,
    records: usize,
    options: &LoadOptions,
) -> Result<std::iter::Peekable<std::vec::IntoIter<usize>>> {
    let count = match options.split {
        Split::None | Split::Fraction(0.0) => 0,
        Split::Count(count) => count,
        Split::Fraction(fraction) => ((fraction * records as f64).round() as u64).max(1),
    };
    if count > 0 && count >= records as u64 {
        return Err(Error::SplitTooLarge {
            name: spec.name.clone(),
            held_out: count,
            records: records as u64,
        });
    }
    let mut chosen = permutation(records, options.seed, "split", source, 0);
    chosen.truncate(count as usize);
    chosen.sort_unstable();
    Ok(chosen.into_iter().peekable())
}

struct Loader<'a> {
    tokenizer: Option<&'a Tokenizer>,
    options: &'a LoadOptions,
    vocab: usize,
}

impl Loader<'_> {
    /// Makes the samples of all records of a file, in file order.
    fn make(&self, spec: &SourceSpec, source: u32) -> Result<Vec<Made>> {
        if self.tokenizer.is_none() && spec.format != Format::Tokens {
            return Err(Error::NoTokenizer { format: spec.format.name() });
        }
        let file = RecordFile::open_as(&spec.path, &spec.file_name)?;
        let renderer = Renderer {
            tokenizer: self.tokenizer,
            format: spec.format,
            train_on: spec.train_on,
            vocab: self.vocab,
            source,
        };
        // Collected before the first error is looked for: which one is told must not depend on threads.
        let made: Vec<Result<Made>> = (0..file.len())
            .into_par_iter()
            .map(|index| renderer.sample(&file.record(index)?.named(&spec.fields), index as u64))
            .collect();
        made.into_iter().collect()
    }

    /// Applies `max_length`, drops what trains nothing, and counts.
    fn keep(&self, name: &str, made: Vec<Made>) -> Result<(Vec<Sample>, Statistics)> {
        let mut counted = Statistics { name: name.to_owned(), ..Statistics::default() };
        let mut kept = Vec::with_capacity(made.len());
        for Made { mut sample, double_bos, missing_eos } in made {
            counted.records += 1;
            counted.double_bos += u64::from(double_bos);
            counted.missing_eos += u64::from(missing_eos);
            if sample.target_tokens() == 0 {
                counted.dropped_untrained += 1;
                continue;
            }
            let limit = self.options.max_length;
            match self.options.on_long {
                _ if sample.tokens() <= limit => {}
                OnLong::Drop => {
                    counted.dropped_long += 1;
                    continue;
                }
                OnLong::Split => {
                    counted.split += 1;
                    kept.extend(split(&sample, limit));
                    continue;
                }
                OnLong::Truncate => {
                    sample.input_ids.truncate(limit);
                    sample.labels.truncate(limit);
                    if sample.target_tokens() == 0 {
                        counted.dropped_truncated += 1;
                        continue;
                    }
                    counted.truncated += 1;
                }
            }
            kept.push(sample);
        }
        counted.measure(&kept);
        if kept.is_empty() {
            return Err(Error::NothingTrained {
                name: counted.name,
                records: counted.records,
                dropped_untrained: counted.dropped_untrained,
                dropped_long: counted.dropped_long,
                dropped_truncated: counted.dropped_truncated,
            });
        }
        Ok((kept, counted))
    }
}

/// Cuts a sample into stretches of `limit` tokens; those that train nothing are left out.
fn split(sample: &Sample, limit: usize) -> impl Iterator<Item = Sample> + '_ {
    let stretches = sample.input_ids.chunks(limit).zip(sample.labels.chunks(limit));
    stretches
        .map(|(ids, labels)| Sample {
            input_ids: ids.to_vec(),
            labels: labels.to_vec(),
            source: sample.source,
            index: sample.index,
        })
        .filter(|stretch| stretch.target_tokens() > 0)
}
