//! How a failure reaches the user: one line, its causes, an empty line, what to do next.
//!
//! ```text
//! error: could not resume from `runs/a1/checkpoints/step-000400`
//!   Caused by: `optimizer.safetensors` has 41943040 bytes, the manifest says 50331648
//!
//! hint: the newest complete checkpoint is `step-000300`
//! ```
//!
//! Exit codes: 0 done, 1 run failed, 2 wrong usage or recipe, 3 a rank was lost.

mod known;

use self::known::explained;
use anstyle::{AnsiColor, Style};
use std::error::Error;
use std::fmt;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

/// How a failed process ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exit {
    /// The run failed: 1.
    #[default]
    Failed,
    /// Wrong usage, or a recipe that cannot be run: 2.
    Usage,
    /// One of several ranks was lost: 3.
    Lost,
}

impl Exit {
    /// Returns the number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Lost => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// An error that knows what to do next.
pub trait Explain: Error {
    /// Returns what to do next, without `hint:`.
    fn hint(&self) -> Option<String>;

    /// Returns how the process ends.
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// A failure worded for the user, for the places where no error type exists.
#[derive(Debug)]
pub struct Explained {
    message: String,
    hint: Option<String>,
    exit: Exit,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Explained {
    /// Words a failed run.
    pub fn new(message: impl Into<String>) -> Explained {
        Explained { message: message.into(), hint: None, exit: Exit::Failed, source: None }
    }

    /// Words wrong usage.
    pub fn usage(message: impl Into<String>) -> Explained {
        Explained { exit: Exit::Usage, ..Explained::new(message) }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Explained {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Explained {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl Error for Explained {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl Explain for Explained {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    fn exit(&self) -> Exit {
        self.exit
    }
}

/// Returns how the process ends: what the outermost error with an opinion says.
pub fn exit(error: &anyhow::Error) -> Exit {
    error.chain().find_map(explained).map_or(Exit::Failed, Explain::exit)
}

/// Writes a failure as it is shown: message, causes, hint.
pub fn render(error: &anyhow::Error, colour: bool) -> String {
    let paint = |style: Style, text: &str| {
        if colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    };
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
    let mut text = format!("{} {error}\n", paint(red, "error:"));
    // Writing to a string cannot fail.
    for cause in error.chain().skip(1) {
        let _ = writeln!(text, "  Caused by: {cause}");
    }
    if let Some(hint) = error.chain().find_map(|error| explained(error).and_then(Explain::hint)) {
        let _ = writeln!(text, "\n{} {hint}", paint(cyan, "hint:"));
    }
    text
}

/// Whether stderr takes colour: a terminal, and no `NO_COLOR`.
pub fn stderr_takes_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A failure that another rank has told.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this failure has been told")]
pub struct Told(pub Exit);

impl Explain for Told {
    fn hint(&self) -> Option<String> {
        None
    }

    fn exit(&self) -> Exit {
        self.0
    }
}

/// Prints a failure to stderr and returns the exit code of the process.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if !error.is::<Told>() {
        report_from(None, error);
    }
    exit(error).into()
}

/// Prints a failure to stderr, with the rank it comes from where there are several.
pub fn report_from(rank: Option<usize>, error: &anyhow::Error) {
    let prefix = rank.map_or_else(String::new, |rank| format!("[rank {rank}] "));
    let text = prefix + &render(error, stderr_takes_colour());
    // Nothing is left to tell when stderr is closed.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::path::Path;

    #[test]
    fn shows_message_causes_and_the_first_hint() {
        let inner = Explained::new("`a.safetensors` ends early").with_hint("fetch it again");
        let error = Err::<(), _>(inner).context("could not load `model`").expect_err("an error");
        assert_eq!(
            render(&error, false),
            "error: could not load `model`\n  Caused by: `a.safetensors` ends early\n\nhint: fetch it again\n"
        );
        assert_eq!(exit(&error), Exit::Failed);
        let plain = anyhow::anyhow!("no memory left");
        assert_eq!(render(&plain, false), "error: no memory left\n");
    }

    #[test]
    fn recipe_errors_are_usage_with_their_hint() {
        let error = crate::recipe::parse("[adapter]\nrnak = 1\n", Path::new("r.toml"), &[])
            .context("could not start")
            .expect_err("unknown key");
        assert_eq!(exit(&error), Exit::Usage);
        assert_eq!(
            render(&error, false),
            "error: could not start\n  Caused by: unknown key `adapter.rnak` in `r.toml` at line 2\n\n\
             hint: did you mean `adapter.rank`?\n"
        );
    }

    #[test]
    fn colour_adds_only_escapes() {
        let cause = std::io::Error::other("disk is gone");
        let error = anyhow::Error::new(Explained::usage("bad").with_hint("good").caused_by(cause));
        let coloured = render(&error, true);
        assert!(coloured.contains("\u{1b}["));
        let escape = regex::Regex::new("\u{1b}\\[[0-9;]*m").expect("a pattern");
        assert_eq!(escape.replace_all(&coloured, ""), render(&error, false));
        assert_eq!(render(&error, false), "error: bad\n  Caused by: disk is gone\n\nhint: good\n");
        assert_eq!(exit(&error), Exit::Usage);
    }
}
