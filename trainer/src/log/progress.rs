//! Progress on stderr: a bar on a terminal, plain lines elsewhere.

use super::{EvalRow, StepRow};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Lines of a run that is not on a terminal, at most.
const PLAIN_LINES: u64 = 50;

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Progress and notes.
    #[default]
    Normal,
    /// Also what is of interest when something is wrong.
    Verbose,
}

/// Tells how far a run is.
#[derive(Debug)]
pub struct Progress {
    verbosity: Verbosity,
    bar: Option<ProgressBar>,
    total_steps: u64,
    first_step: u64,
    every: u64,
    started: Instant,
}

impl Progress {
    /// Starts to tell of a run of `total_steps` steps, of which `done_steps` are done.
    pub fn new(total_steps: u64, done_steps: u64, verbosity: Verbosity) -> Progress {
        let on_terminal = std::io::stderr().is_terminal();
        let bar = (on_terminal && verbosity != Verbosity::Quiet).then(|| bar(total_steps, done_steps));
        let every = total_steps.div_ceil(PLAIN_LINES).max(1);
        Progress { verbosity, bar, total_steps, first_step: done_steps, every, started: Instant::now() }
    }

    /// Tells of a finished step.
    pub fn step(&self, row: &StepRow) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("loss {:.4}, {:.0} tokens/s", row.loss, row.tokens_per_second));
            bar.set_position(row.step);
        } else if is_told(row.step, self.first_step, self.total_steps, self.every) {
            let left =
                time_left(self.started.elapsed(), row.step - self.first_step.min(row.step), self.left(row));
            self.note(&step_line(row, self.total_steps, left));
        }
    }

    /// Tells of an evaluation.
    pub fn eval(&self, row: &EvalRow) {
        self.note(&eval_line(row));
    }

    /// Writes a line above the bar.
    pub fn note(&self, text: &str) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }

    /// Writes a line that is of interest only when something is wrong.
    pub fn detail(&self, text: &str) {
        if self.verbosity == Verbosity::Verbose {
            self.note(text);
        }
    }

    /// Writes a warning, however quiet the run is.
    pub fn warn(&self, text: &str) {
        let line = format!("warning: {text}");
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(&line)),
            None => write_line(&line),
        }
    }

    /// Leaves the last state of the bar on the screen.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }

    fn left(&self, row: &StepRow) -> u64 {
        self.total_steps.saturating_sub(row.step)
    }
}

fn write_line(text: &str) {
    // Nothing is left to tell when stderr is closed; the run goes on.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn bar(total_steps: u64, done_steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("step {pos}/{len} [{bar:30}] {msg}, {eta} left")
        .expect("the template is a constant")
        .progress_chars("=> ");
    let bar = ProgressBar::new(total_steps).with_style(style).with_position(done_steps);
    // The steps before a resume took no time of this process.
    bar.reset_eta();
    bar
}

/// Whether a step gets a line: the first of this process, the last, and every n-th.
fn is_told(step: u64, first_step: u64, total_steps: u64, every: u64) -> bool {
    step == first_step + 1 || step == total_steps || step.is_multiple_of(every)
}

fn time_left(elapsed: Duration, done: u64, left: u64) -> Duration {
    Duration::try_from_secs_f64(elapsed.as_secs_f64() / done.max(1) as f64 * left as f64)
        .unwrap_or(Duration::MAX)
}

fn step_line(row: &StepRow, total_steps: u64, left: Duration) -> String {
    format!(
        "step {}/{total_steps}  loss {:.4}  grad norm {:.4}  lr {:.3e}  {:.0} tokens/s  {} left",
        row.step,
        row.loss,
        row.grad_norm,
        row.lr,
        row.tokens_per_second,
        clock(left)
    )
}

fn eval_line(row: &EvalRow) -> String {
    format!(
        "step {}  held-out loss {:.4}  perplexity {:.3}  ({} tokens)",
        row.step, row.eval_loss, row.eval_perplexity, row.eval_tokens
    )
}

/// Writes a duration as `1h02m`, `2m03s` or `4s`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_every_step_of_a_short_run_and_fifty_of_a_long_one() {
        let told = |total: u64, first: u64| {
            let every = total.div_ceil(PLAIN_LINES).max(1);
            (first + 1..=total).filter(|step| is_told(*step, first, total, every)).collect::<Vec<_>>()
        };
        assert_eq!(told(20, 0).len(), 20);
        let long = told(1003, 400);
        assert_eq!((long[0], long[1], long[long.len() - 1]), (401, 420, 1003));
        assert!(told(1003, 0).len() <= 50 + 2);
    }

    #[test]
    fn lines_hold_step_loss_speed_and_time_left() {
        let row = StepRow {
            step: 5,
            loss: 2.0,
            grad_norm: 0.5,
            lr: 2e-4,
            trained_tokens: 9,
            tokens_per_second: 812.4,
            seconds: 1.0,
            cpu_seconds: None,
            peak_memory_bytes: None,
            device_memory_bytes: None,
            adapter_sha256: None,
        };
        let left = time_left(Duration::from_secs(10), 5, 60);
        assert_eq!(
            step_line(&row, 65, left),
            "step 5/65  loss 2.0000  grad norm 0.5000  lr 2.000e-4  812 tokens/s  2m00s left"
        );
        assert_eq!(clock(Duration::from_secs(3725)), "1h02m");
        assert_eq!(clock(Duration::from_secs(9)), "9s");
        assert_eq!(
            eval_line(&EvalRow::new(0, 0.0, 12)),
            "step 0  held-out loss 0.0000  perplexity 1.000  (12 tokens)"
        );
    }
}
