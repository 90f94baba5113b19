//! `seedcorn generate`: a model answers a prompt.

use std::io::{self, Write};
use std::path::Path;

use seedcorn_data::{Message, Place, Tokenizer};

use super::args::{self, Global};
use super::model;
use crate::error::Explained;
use crate::generate::{Sampling, generate};

pub(super) fn run(args: &args::Generate, global: &Global) -> anyhow::Result<()> {
    let loaded = model::load(&args.model, global)?;
    let Some(tokenizer) = &loaded.base.tokenizer else {
        return Err(Explained::usage(format!("the model `{}` has no tokenizer", args.model.model))
            .with_hint("add its `tokenizer.json` to the folder")
            .into());
    };
    let prompt = prompt_ids(args, tokenizer)?;
    let sampling = Sampling {
        max_new_tokens: args.max_new_tokens as usize,
        temperature: args.temperature as f32,
        top_p: args.top_p as f32,
        seed: args.seed,
        stop: loaded.base.stop_ids(),
    };
    let mut stream = tokenizer.stream(true);
    let mut written: anyhow::Result<()> = Ok(());
    generate((&loaded.decoder).into(), loaded.adapter.as_ref(), &prompt, &sampling, |id| {
        if written.is_ok() {
            written = stream.step(id).map_err(anyhow::Error::from).and_then(|text| Ok(print(&text)?));
        }
    })?;
    written?;
    print(&(stream.finish()? + "\n"))?;
    Ok(())
}

/// Encodes the prompt: as a user's message in the model's chat template, or as it is.
fn prompt_ids(args: &args::Generate, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
    let Some(template) = tokenizer.template().filter(|_| !args.raw) else {
        return Ok(tokenizer.encode(&args.prompt, true)?);
    };
    let message = |role: &str, content: &str| -> Message {
        [("role", role), ("content", content)]
            .map(|(key, value)| (key.to_owned(), value.into()))
            .into_iter()
            .collect()
    };
    let system = args.system.iter().map(|text| message("system", text));
    let messages: Vec<Message> = system.chain([message("user", &args.prompt)]).collect();
    let place = Place::record(Path::new("--prompt"), 1);
    let text = template.render(&messages, true).map_err(|error| error.at(&place))?;
    Ok(tokenizer.encode(&text, false)?)
}

/// Writes text to stdout as it comes; a reader that has gone away is not an error.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
