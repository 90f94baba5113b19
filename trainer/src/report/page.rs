//! The page: everything it shows as values, the template, and the policy that holds its own style and script.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Output, State, UndefinedBehavior, Value, escape_formatter};
use seedcorn_data::Statistics;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::chart::Chart;
use super::curves::{self, Table};
use super::facts::{Answer, Facts};
use super::figures::{self, Evaluations, Figure, MemoryView, when};
use super::files::Hashes;
use super::lengths::Lengths;
use super::numbers::{grouped, percent};
use crate::error::Explained;
use crate::evidence::Lock;
use crate::log::Rows;

/// Autoescaping goes by the ending before `.j2`.
const NAME: &str = "report.html.j2";
const TEMPLATE: &str = include_str!("report.html.j2");
const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// Everything that the template shows.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Page {
    name: String,
    status: String,
    finished: bool,
    notes: Vec<String>,
    summary: String,
    figures: Vec<Figure>,
    evaluations: Option<Evaluations>,
    answers: Vec<AnswerView>,
    charts: Vec<Chart>,
    table: Table,
    lengths: Option<Lengths>,
    sources: Vec<SourceView>,
    memory: Vec<MemoryView>,
    setting: Vec<[String; 2]>,
    recipe: String,
    hashes: Hashes,
    output: String,
    tool: String,
}

/// A held-out question with answers.
#[derive(Clone, Debug, Serialize)]
struct AnswerView {
    question: String,
    expected: String,
    answers: Vec<[String; 2]>,
}

/// What became of a source.
#[derive(Clone, Debug, Serialize)]
struct SourceView {
    name: String,
    role: &'static str,
    /// What was counted, and how much.
    counts: Vec<[String; 2]>,
}

impl Page {
    /// Puts together what there is to show.
    pub(super) fn new(lock: &Lock, rows: &Rows, facts: Option<&Facts>) -> Page {
        let output = lock.recipe.get("output").and_then(toml::Value::as_str).unwrap_or("run");
        let done = rows.steps.last().map_or(0, |row| row.step);
        let of = lock.samples.total_steps;
        let finished = lock.results.is_some();
        let status = match (finished, done) {
            (true, _) => format!("finished, {} of {} steps", grouped(done), grouped(of)),
            (false, 0) => format!("not finished: no step of {} is logged", grouped(of)),
            (false, _) => format!("not finished: {} of {} steps are logged", grouped(done), grouped(of)),
        };
        let planned = facts.map(figures::planned);
        let table = toml::Table::try_from(lock).expect("a lock is TOML");
        Page {
            name: output.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or(output).to_owned(),
            status,
            finished,
            notes: notes(rows, facts),
            summary: summary(lock, facts),
            figures: figures::figures(lock, rows),
            evaluations: Evaluations::of(rows),
            answers: facts.map_or(Vec::new(), |facts| answers(&facts.answers)),
            charts: curves::charts(rows, facts, planned),
            table: Table::of(rows),
            lengths: facts.and_then(|facts| Lengths::new(&facts.lengths)),
            sources: facts.map_or_else(|| vec![from_lock(lock)], sources),
            memory: facts.map_or(Vec::new(), |facts| figures::memory(facts, rows)),
            setting: setting(lock, facts),
            recipe: toml::to_string(&lock.recipe).expect("a recipe is TOML"),
            hashes: Hashes::of(&table),
            output: tidy(output),
            tool: format!("Seedcorn {} ({} build)", lock.tool.version, lock.tool.profile),
        }
    }

    /// Fills in the template.
    pub(super) fn render(&self) -> Result<String, Explained> {
        let fault = |error| Explained::new("could not fill in the report").caused_by(error);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let mut environment = Environment::new();
        environment.set_syntax(syntax.map_err(fault)?);
        environment.set_formatter(format);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
            source(STYLE),
            source(SCRIPT)
        );
        let page = Value::from(Serde(self));
        let context = minijinja::context! { page, policy, style => STYLE, script => SCRIPT };
        environment.render_named_str(NAME, TEMPLATE, context).map_err(fault)
    }
}

/// Escapes a value, after taking out characters that are not for showing.
fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    let odd = |char: char| (char.is_control() && !matches!(char, '\n' | '\t')) || is_direction(char);
    match value.as_str().filter(|text| !value.is_safe() && text.contains(odd)) {
        Some(text) if *state.auto_escape() == AutoEscape::Html => {
            let clean = text.replace("\r\n", "\n").replace(odd, "\u{fffd}");
            escape_formatter(out, state, &Value::from(clean))
        }
        _ => escape_formatter(out, state, value),
    }
}

/// Whether a character turns the direction of what follows, beyond the text that it stands in.
fn is_direction(char: char) -> bool {
    matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Names a style or a script in the policy, by its hash.
fn source(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// What a reader must know about the page itself.
fn notes(rows: &Rows, facts: Option<&Facts>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(facts) = facts {
        /// Interruptions that are named; of more the number is enough.
        const NAMED: usize = 10;
        let steps: Vec<u64> = facts.starts.iter().map(|start| start.step).filter(|step| *step > 0).collect();
        if !steps.is_empty() {
            let mut list: Vec<String> = steps.iter().take(NAMED).map(|step| grouped(*step)).collect();
            if steps.len() > NAMED {
                list.push(format!("and {} times more", steps.len() - NAMED));
            }
            let list = list.join(", ");
            notes.push(format!(
                "The run was interrupted and continued after step {list} (dashed in the curves)."
            ));
        }
    } else {
        notes.push(
            "report.json is not in this folder, or damaged: lengths, memory plan and answers are not shown."
                .into(),
        );
    }
    if rows.unread > 0 {
        let count = grouped(rows.unread);
        notes.push(format!(
            "{count} lines of metrics.jsonl are neither a step nor an evaluation, and not shown."
        ));
    }
    notes
}

/// One sentence: what was trained on what.
fn summary(lock: &Lock, facts: Option<&Facts>) -> String {
    let samples = grouped(lock.samples.train);
    let data = format!("{samples} samples ({} trained tokens a pass)", grouped(lock.samples.trained_tokens));
    match facts.map(|facts| &facts.model) {
        Some(model) => format!(
            "An adapter of {} trained values in {} linear layers of {} ({}, {} parameters), on {data}.",
            grouped(model.trained),
            grouped(model.adapted),
            lock.model.source,
            model.family,
            grouped(model.parameters)
        ),
        None => format!("An adapter of {}, on {data}.", lock.model.source),
    }
}

/// Groups answers by question; a run shows one.
fn answers(answers: &[Answer]) -> Vec<AnswerView> {
    let mut views: Vec<AnswerView> = Vec::new();
    for Answer { step, question, expected, answer } in answers {
        let given = [when(*step), answer.clone()];
        match views.iter_mut().find(|view| view.question == *question && view.expected == *expected) {
            Some(view) => view.answers.push(given),
            None => views.push(AnswerView {
                question: question.clone(),
                expected: expected.clone(),
                answers: vec![given],
            }),
        }
    }
    views
}

fn sources(facts: &Facts) -> Vec<SourceView> {
    let view =
        |role| move |one: &Statistics| SourceView { name: one.name.clone(), role, counts: counts(one) };
    facts.train.iter().map(view("training")).chain(facts.eval.iter().map(view("held out"))).collect()
}

fn counts(one: &Statistics) -> Vec<[String; 2]> {
    let row = |what: &str, value: String| [what.to_owned(), value];
    let mut rows = vec![
        row("records", grouped(one.records)),
        row("samples", grouped(one.samples)),
        row("tokens", grouped(one.tokens)),
        row("trained tokens", grouped(one.trained_tokens)),
        row("trained share", percent(one.trained_tokens, one.tokens)),
        row("shortest, median, longest", {
            let lengths = [one.min_length, one.median_length, one.max_length].map(grouped);
            format!("{} tokens", lengths.join(", "))
        }),
        row("truncated", grouped(one.truncated)),
        row("dropped: too long", grouped(one.dropped_long)),
        row("dropped: nothing trained after the cut", grouped(one.dropped_truncated)),
        row("dropped: nothing trained", grouped(one.dropped_untrained)),
    ];
    for (what, count) in
        [("a second BOS taken out", one.double_bos), ("an answer without end token", one.missing_eos)]
    {
        if count > 0 {
            rows.push(row(what, grouped(count)));
        }
    }
    rows
}

/// What the lock knows of all training sources together.
fn from_lock(lock: &Lock) -> SourceView {
    let samples = &lock.samples;
    let row = |what: &str, count: u64| [what.to_owned(), grouped(count)];
    let counts = vec![
        row("samples", samples.train),
        row("tokens", samples.tokens),
        row("trained tokens", samples.trained_tokens),
        ["trained share".to_owned(), percent(samples.trained_tokens, samples.tokens)],
        row("truncated", samples.truncated),
        row("dropped", samples.dropped),
    ];
    SourceView { name: "all sources".to_owned(), role: "training", counts }
}

/// Where the bits come from besides the inputs.
fn setting(lock: &Lock, facts: Option<&Facts>) -> Vec<[String; 2]> {
    let row = |what: &str, value: String| [what.to_owned(), value];
    let mut rows = vec![
        row("device class", format!("{}, {}", lock.device.class, lock.device.isa)),
        row("sequences a pass", grouped(lock.samples.sequences)),
    ];
    if let Some(facts) = facts {
        let mut threads: Vec<String> = facts.starts.iter().map(|start| start.threads.to_string()).collect();
        threads.dedup();
        rows.push(row("threads (never change a bit)", threads.join(", then ")));
    }
    rows
}

/// Takes `x/..` out of a path that is shown in a command.
fn tidy(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match (part, parts.last()) {
            ("..", Some(last)) if !["..", ""].contains(last) => drop(parts.pop()),
            ("." | "", Some(_)) => {}
            _ => parts.push(part),
        }
    }
    let path = parts.join("/");
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+=:@%,".contains(char);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
