//! `seedcorn eval`: loss and perplexity on data, and logits for those who compare.

use std::path::Path;

use seedcorn_data::source::{self, Source};
use seedcorn_data::{Dataset, EvalSource, LoadOptions, MicroBatch};
use serde_json::json;

use super::args::{self, Global};
use super::model::{self, Loaded};
use crate::build::file_spec;
use crate::checkpoint::atomic;
use crate::evaluate::{EvalShape, Evaluation, evaluate};
use crate::log::data_line;
use crate::model::{Input, Model};
use crate::parallel::Ranks;

/// Samples that go through the model at once.
const MICRO_BATCH: usize = 4;

pub(super) fn run(args: &args::Eval, global: &Global) -> anyhow::Result<()> {
    let loaded = model::load(&args.model, global)?;
    let resolver = super::resolver(global);
    let specs = args.data.iter().map(|text| {
        let resolved = source::resolve(&Source::parse(text, Path::new(""))?, &resolver)?;
        file_spec(&resolved, text, args.format, args.train_on, 1.0)
    });
    let options = LoadOptions {
        max_length: args.max_length as usize,
        eval: specs.collect::<anyhow::Result<_>>()?,
        vocab_size: Some(loaded.base.spec.vocab_size),
        ..LoadOptions::default()
    };
    let dataset = Dataset::load(&[], loaded.base.tokenizer.as_ref(), &options)?;
    let (ranks, how) = (Ranks::alone(), EvalShape { micro_batch: MICRO_BATCH, max_samples: None });
    let evaluation =
        evaluate(&ranks, 0, Model::from(&loaded.decoder), loaded.adapter.as_ref(), dataset.eval(), how)?;
    if let Some(path) = &args.logits {
        write_logits(path, &loaded, dataset.eval())?;
    }
    if args.json {
        print_json(args, &evaluation)?;
    } else {
        print_text(&evaluation)?;
    }
    Ok(())
}

fn print_json(args: &args::Eval, evaluation: &Evaluation) -> std::io::Result<()> {
    let source = |name: &str, loss: f64, tokens: u64| json!({ "source": name, "loss": loss, "perplexity": loss.exp(), "tokens": tokens });
    let sources: Vec<_> =
        evaluation.sources.iter().map(|one| source(&one.name, one.loss(), one.tokens)).collect();
    data_line(
        &json!({
            "model": args.model.model,
            "adapter": args.model.adapter,
            "loss": evaluation.loss(),
            "perplexity": evaluation.perplexity(),
            "tokens": evaluation.tokens(),
            "sources": sources,
        })
        .to_string(),
    )
}

fn print_text(evaluation: &Evaluation) -> std::io::Result<()> {
    let row = |name: &str, loss: f64, tokens: u64| {
        data_line(&format!("{name}: loss {loss:.6}, perplexity {:.4}, {tokens} tokens", loss.exp()))
    };
    for one in &evaluation.sources {
        row(&one.name, one.loss(), one.tokens)?;
    }
    if evaluation.sources.len() > 1 {
        row("all", evaluation.loss(), evaluation.tokens())?;
    }
    Ok(())
}

/// Writes `logits.0`, `logits.1`, ... `[tokens, vocab]` in f32, one a sample in file order, as safetensors.
///
/// The file is written a sample at a time, since the logits of all samples need not fit in memory.
fn write_logits(path: &Path, loaded: &Loaded, sources: &[EvalSource]) -> anyhow::Result<()> {
    let samples: Vec<_> = sources.iter().flat_map(|source| &source.samples).collect();
    let vocab = loaded.base.spec.vocab_size;
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (index, sample) in samples.iter().enumerate() {
        let (start, shape) = (end, [sample.tokens(), vocab]);
        end += 4 * sample.tokens() * vocab;
        header.insert(
            format!("logits.{index}"),
            json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] }),
        );
    }
    let mut text = serde_json::to_vec(&header)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    atomic::write_with(path, |out| {
        out.write_all(&(text.len() as u64).to_le_bytes())?;
        out.write_all(&text)?;
        for sample in &samples {
            let batch = MicroBatch::from_samples(0, &[sample]);
            let logits = loaded.decoder.logits(&Input::from(&batch), loaded.adapter.as_ref()).into_data();
            out.write_all(logits.bytes())?;
        }
        Ok(())
    })?;
    Ok(())
}
