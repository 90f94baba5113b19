//! `seedcorn inspect`: what of each token a run reads and what it trains.

use std::fmt::Write as _;
use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};
use seedcorn_data::{IGNORE, Sample, TokenView, Tokenizer};

use super::args::{self, Global};
use crate::build::{Prepared, prepare};
use crate::error::stderr_takes_colour;
use crate::log::{Verbosity, data_line, note_line};
use crate::recipe;

pub(super) fn run(args: &args::Inspect, global: &Global) -> anyhow::Result<()> {
    let recipe = recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let prepared = prepare(recipe, &super::resolver(global))?;
    let units = prepared.order.epoch(0)?;
    let colour = stdout_takes_colour();
    for (number, unit) in units.iter().take(args.samples).enumerate() {
        if prepared.recipe.data.packing {
            let tokens: usize = unit.iter().map(|&at| prepared.dataset.samples()[at].tokens()).sum();
            let (number, count) = (number + 1, units.len());
            let samples = unit.len();
            data_line(&format!("=== pack {number} of {count}, {samples} samples, {tokens} tokens ==="))?;
        }
        for &at in unit {
            let sample = &prepared.dataset.samples()[at];
            data_line(&border(sample, &prepared))?;
            data_line(&text(sample, prepared.base.tokenizer.as_ref(), colour)?)?;
        }
    }
    // The legend shows the styles only where they can be seen.
    if global.verbosity() != Verbosity::Quiet {
        note_line(&legend(colour, stderr_takes_colour()));
    }
    Ok(())
}

/// Whether stdout takes colour: a terminal, and no `NO_COLOR`.
fn stdout_takes_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Names a sample: its record counted from 1, its source and its size.
fn border(sample: &Sample, prepared: &Prepared) -> String {
    let source = &prepared.dataset.statistics()[sample.source as usize].name;
    let (tokens, trained) = (sample.tokens(), sample.target_tokens());
    format!("--- sample {} of `{source}`, {tokens} tokens, {trained} trained ---", sample.index + 1)
}

fn text(sample: &Sample, tokenizer: Option<&Tokenizer>, colour: bool) -> seedcorn_data::Result<String> {
    let views = match tokenizer {
        Some(tokenizer) => sample.view(tokenizer)?,
        None => ids(sample),
    };
    Ok(if colour { painted(&views) } else { bracketed(&views) })
}

/// Shows the ids themselves, with a space between them.
fn ids(sample: &Sample) -> Vec<TokenView> {
    let tokens = sample.input_ids.iter().zip(&sample.labels).enumerate();
    tokens
        .map(|(at, (&id, &label))| TokenView {
            id,
            text: if at == 0 { id.to_string() } else { format!(" {id}") },
            trained: label != IGNORE && at > 0,
        })
        .collect()
}

/// Puts trained stretches in `[[` and `]]`.
fn bracketed(views: &[TokenView]) -> String {
    let mut text = String::new();
    let mut trained = false;
    for view in views {
        if view.trained != trained {
            text.push_str(if trained { "]]" } else { "[[" });
            trained = view.trained;
        }
        text.push_str(&visible(&view.text));
    }
    if trained {
        text.push_str("]]");
    }
    text
}

/// Paints each token; every other one is underlined, so that their borders show.
fn painted(views: &[TokenView]) -> String {
    let mut text = String::new();
    let mut odd = false;
    for view in views.iter().filter(|view| !view.text.is_empty()) {
        let style = if odd { style(view.trained).underline() } else { style(view.trained) };
        // Styles do not reach over the end of a line: some terminals and pagers stop there.
        for (at, line) in visible(&view.text).split('\n').enumerate() {
            if at > 0 {
                text.push('\n');
            }
            if !line.is_empty() {
                // Writing to a string cannot fail.
                let _ = write!(text, "{style}{line}{style:#}");
            }
        }
        odd = !odd;
    }
    text
}

fn style(trained: bool) -> Style {
    if trained { Style::new().bold().fg_color(Some(AnsiColor::Green.into())) } else { Style::new().dimmed() }
}

/// Escapes control characters, which a terminal would obey; line ends and tabs stay.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() && char != '\n' && char != '\t' {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

fn legend(colour: bool, legend_takes_colour: bool) -> String {
    if !colour {
        return "legend: [[trained]] masked".to_owned();
    }
    let word = |trained: bool, text: &str| {
        let style = style(trained);
        if legend_takes_colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    };
    format!("legend: {}, {}", word(true, "trained (bold)"), word(false, "masked (dim)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(tokens: &[(&str, bool)]) -> Vec<TokenView> {
        let view =
            |(text, trained): &(&str, bool)| TokenView { id: 0, text: (*text).to_owned(), trained: *trained };
        tokens.iter().map(view).collect()
    }

    #[test]
    fn trained_stretches_stand_in_brackets() {
        let views = views(&[
            ("<|user|>", false),
            ("Hi\n", false),
            ("Hel", true),
            ("lo", true),
            ("\n", false),
            ("x", true),
        ]);
        assert_eq!(bracketed(&views), "<|user|>Hi\n[[Hello]]\n[[x]]");
        assert_eq!(bracketed(&[]), "");
    }

    #[test]
    fn a_sample_without_tokenizer_shows_ids() {
        let sample =
            Sample { input_ids: vec![5, 6, 70, 8], labels: vec![5, IGNORE, 70, 8], ..Sample::default() };
        assert_eq!(text(&sample, None, false).unwrap(), "5 6[[ 70 8]]", "the first token is never predicted");
    }

    #[test]
    fn paint_adds_only_escapes() {
        let views = views(&[("a\nb", true), ("", true), ("c", false), ("\u{1b}[31m", true)]);
        let escape = regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
        let painted = painted(&views);
        assert_eq!(escape.replace_all(&painted, ""), "a\nbc\\u{1b}[31m");
        assert_eq!(bracketed(&views), "[[a\nb]]c[[\\u{1b}[31m]]");
        let dim = format!("{}", Style::new().dimmed().underline());
        assert!(painted.contains(&format!("{dim}c")), "{painted:?}");
    }
}
