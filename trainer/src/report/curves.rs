//! The curves of a run, and its steps in a table.

use serde::Serialize;

use super::chart::{Chart, Curve, Layout};
use super::facts::Facts;
use super::numbers::{grouped, grouped_signed, measured};
use crate::log::{Rows, Update};
use crate::recipe::shown_bytes;

/// Steps in the table, about.
const TABLE_STEPS: usize = 50;
/// Units of memory, the largest first.
const UNITS: [(&str, f64); 3] = [("GB", 1e9), ("MB", 1e6), ("B", 1.0)];

/// Draws every curve that has a point. `facts` is what was planned.
pub(super) fn charts(rows: &Rows, facts: Option<&Facts>, planned: Option<u64>) -> Vec<Chart> {
    let starts: Vec<u64> =
        facts.map_or(Vec::new(), |facts| facts.starts.iter().map(|start| start.step).collect());
    // A run starts once; what is of interest is where it was continued.
    let starts: Vec<u64> = starts.into_iter().filter(|step| *step > 0).collect();
    let steps =
        |name, value: fn(&Update) -> Option<f64>| Curve { name, class: "train", points: rows.values(value) };
    let held_out = Curve {
        name: "held-out",
        class: "held-out",
        points: rows.evals.iter().map(|row| (row.step, row.loss)).collect(),
    };
    let one = |title, unit, layout, curve| Chart::new(title, unit, layout, vec![curve], &starts);
    let charts = [
        Chart::new(
            ("loss", "Loss"),
            "nats a token",
            Layout::Range,
            vec![steps("training", |row| Some(row.loss)), held_out],
            &starts,
        ),
        one(
            ("grad-norm", "Gradient norm"),
            "global, before clipping",
            Layout::Wide,
            steps("gradient norm", |row| Some(row.grad_norm)),
        ),
        one(("lr", "Learning rate"), "of the step", Layout::Zero, steps("learning rate", |row| Some(row.lr))),
        one(
            ("throughput", "Throughput"),
            "tokens a second",
            Layout::Zero,
            steps("throughput", |row| Some(row.tokens_per_second)),
        ),
        memory(rows, planned, &starts),
    ];
    charts.into_iter().flatten().collect()
}

fn memory(rows: &Rows, planned: Option<u64>, starts: &[u64]) -> Option<Chart> {
    let mut points = rows.values(|row| row.peak_memory_bytes.map(|bytes| bytes as f64));
    let most = points.iter().map(|(_, bytes)| *bytes).fold(planned.unwrap_or(0) as f64, f64::max);
    let (unit, scale) = UNITS.into_iter().find(|(_, scale)| most >= *scale).unwrap_or(UNITS[2]);
    for (_, bytes) in &mut points {
        *bytes /= scale;
    }
    let curve = Curve { name: "peak memory", class: "train", points };
    let rule = planned.map(|bytes| (bytes as f64 / scale, "planned"));
    let unit = format!("{unit}, the most a process has had so far");
    Chart::with_rule(("memory", "Memory"), unit, Layout::Zero, vec![curve], starts, rule)
}

/// Some steps in numbers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Table {
    rows: Vec<TableRow>,
    /// Every which step is shown.
    every: usize,
}

#[derive(Clone, Debug, Serialize)]
struct TableRow {
    step: String,
    loss: String,
    held_out: String,
    grad_norm: String,
    lr: String,
    speed: String,
    memory: String,
}

impl Table {
    /// Takes every n-th step and both ends, and every step that was evaluated as long as these are few.
    pub(super) fn of(rows: &Rows) -> Table {
        let every = rows.steps.len().div_ceil(TABLE_STEPS).max(1);
        let few = rows.evals.len() <= TABLE_STEPS;
        let held_out =
            |step: u64| rows.evals.binary_search_by_key(&step, |row| row.step).ok().map(|at| &rows.evals[at]);
        let count = rows.steps.len();
        let shown = |at: usize, row: &Update| {
            at == 0
                || at + 1 == count
                || (at + 1).is_multiple_of(every)
                || few && held_out(row.step).is_some()
        };
        let cells = |row: &Update| TableRow {
            step: grouped(row.step),
            loss: measured(row.loss),
            held_out: held_out(row.step).map_or(String::new(), |row| measured(row.loss)),
            grad_norm: measured(row.grad_norm),
            lr: if row.lr == 0.0 { "0".to_owned() } else { format!("{:.3e}", row.lr) },
            speed: grouped_signed(row.tokens_per_second),
            memory: row.peak_memory_bytes.map_or(String::new(), shown_bytes),
        };
        let shown = rows.steps.iter().enumerate().filter(|(at, row)| shown(*at, row));
        Table { rows: shown.map(|(_, row)| cells(row)).collect(), every }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Eval;

    fn rows(count: u64) -> Rows {
        let step = |step| Update {
            step,
            loss: 1.0,
            grad_norm: 2.0,
            lr: 1e-4,
            trained_tokens: step,
            tokens_per_second: 10.0,
            seconds: Some(1.0),
            peak_memory_bytes: Some(3_000_000),
            device_memory_bytes: None,
            adapter_sha256: None,
        };
        let eval = |step| Eval { step, loss: 0.5, tokens: 1, sources: Vec::new() };
        Rows { steps: (1..=count).map(step).collect(), evals: vec![eval(0), eval(77)], unread: 0 }
    }

    #[test]
    fn the_table_holds_ends_and_evaluations() {
        let steps = |count| Table::of(&rows(count)).rows.into_iter().map(|row| row.step).collect::<Vec<_>>();
        assert_eq!(steps(3), ["1", "2", "3"]);
        let long = steps(1001);
        assert!(long.len() < 55, "{}", long.len());
        assert_eq!((long[0].as_str(), long[long.len() - 1].as_str()), ("1", "1,001"));
        assert!(long.contains(&"77".to_owned()));
        assert_eq!(steps(0).len(), 0);
    }

    #[test]
    fn a_run_has_five_charts_and_one_without_steps_none() {
        assert_eq!(charts(&rows(3), None, Some(1_000_000_000)).len(), 5);
        assert_eq!(charts(&Rows::default(), None, None).len(), 0);
    }
}
