//! Curves as the template draws them: every place is a share of the plot, so that a plot stretches to
//! any width while its text and its lines keep their size.

use std::fmt::Write;

use serde::Serialize;

use super::numbers::grouped;
use super::scale::{Mark, Scale};

/// Points of a curve at most: two for each of the pixels that a narrow screen has.
const POINTS: usize = 600;
/// Stretches whose mean is drawn where there are more points.
const MEANS: usize = 100;
/// From this many points on a curve is drawn without a dot at each.
const DOTS: usize = 25;
/// Side of the square that curves are drawn in, before it is stretched.
const SIDE: f64 = 1000.0;

/// One curve.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// What it shows.
    pub(super) name: &'static str,
    /// Class of its colour.
    pub(super) class: &'static str,
    /// Values by step, ascending.
    pub(super) points: Vec<(u64, f64)>,
}

/// How the values of a chart are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// From the lowest to the highest.
    Range,
    /// From zero.
    Zero,
    /// From zero, or by powers of ten where there are several.
    Wide,
}

/// A chart as the template draws it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Chart {
    id: &'static str,
    title: &'static str,
    unit: String,
    /// What it shows in words, for those who do not see it.
    description: String,
    x_marks: Vec<Place>,
    y_marks: Vec<Place>,
    curves: Vec<Drawn>,
    rule: Option<Rule>,
    starts: Vec<String>,
    logarithmic: bool,
    /// Whether only the lowest and highest values of each stretch are drawn.
    thinned: bool,
}

/// A marked number and its place.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    at: String,
    label: String,
}

/// A level for comparison.
#[derive(Clone, Debug, Serialize)]
struct Rule {
    at: String,
    label: &'static str,
}

/// A curve, placed.
#[derive(Clone, Debug, Serialize)]
struct Drawn {
    name: &'static str,
    class: &'static str,
    path: String,
    /// The mean of each stretch, where only ends of stretches are drawn.
    mean: Option<String>,
    dots: Vec<[String; 2]>,
    /// Steps and values, for the readout.
    steps: String,
    values: String,
}

impl Chart {
    /// Places curves; nothing where no curve has a point. `starts` are the steps after which the run was continued.
    pub(super) fn new(
        (id, title): (&'static str, &'static str),
        unit: impl Into<String>,
        layout: Layout,
        curves: Vec<Curve>,
        starts: &[u64],
    ) -> Option<Chart> {
        Self::with_rule((id, title), unit, layout, curves, starts, None)
    }

    /// Places curves and a level for comparison.
    pub(super) fn with_rule(
        (id, title): (&'static str, &'static str),
        unit: impl Into<String>,
        layout: Layout,
        mut curves: Vec<Curve>,
        starts: &[u64],
        rule: Option<(f64, &'static str)>,
    ) -> Option<Chart> {
        let unit = unit.into();
        curves.retain(|curve| !curve.points.is_empty());
        let steps = || curves.iter().flat_map(|curve| curve.points.iter().map(|(step, _)| *step));
        // A run that is seen from its first step is shown from before it.
        let first = steps().min().map(|step| if step <= 1 { 0 } else { step })?;
        let x = Scale::steps(first, steps().max()?);
        let values = curves.iter().flat_map(|curve| curve.points.iter().map(|(_, value)| *value));
        let values = values.chain(rule.map(|(value, _)| value));
        let y = match layout {
            Layout::Range => Scale::values(values, false),
            Layout::Zero => Scale::values(values, true),
            Layout::Wide => Scale::wide(values),
        };
        let inside = |step: &&u64| steps().min() <= Some(**step) && Some(**step) < steps().max();
        Some(Chart {
            id,
            title,
            description: curves.iter().map(|curve| describe(curve, &unit)).collect::<Vec<_>>().join(" "),
            x_marks: x.marks().iter().map(|mark| place(mark, x.at(mark.value))).collect(),
            y_marks: y.marks().iter().map(|mark| place(mark, 1.0 - y.at(mark.value))).collect(),
            rule: rule.map(|(value, label)| Rule { at: share(1.0 - y.at(value)), label }),
            starts: starts.iter().filter(inside).map(|step| share(x.at(*step as f64))).collect(),
            logarithmic: y.is_logarithmic(),
            thinned: curves.iter().any(|curve| curve.points.len() > POINTS),
            curves: curves.iter().map(|curve| draw(curve, &x, &y)).collect(),
            unit,
        })
    }
}

pub(super) fn place(mark: &Mark, at: f64) -> Place {
    Place { at: share(at), label: mark.label.clone() }
}

/// Writes a share of the plot.
pub(super) fn share(at: f64) -> String {
    format!("{:.2}%", 100.0 * at)
}

fn describe(curve: &Curve, unit: &str) -> String {
    let shown = super::numbers::measured;
    let of = |step: u64, value: f64| format!("{} at step {}", shown(value), grouped(step));
    let by_value = |left: &&(u64, f64), right: &&(u64, f64)| left.1.total_cmp(&right.1);
    let (first, last) = (curve.points.first(), curve.points.last());
    let (least, most) = (curve.points.iter().min_by(by_value), curve.points.iter().max_by(by_value));
    let (Some(first), Some(last), Some(least), Some(most)) = (first, last, least, most) else {
        return String::new();
    };
    let count = curve.points.len();
    if count == 1 {
        return format!("{} ({unit}): {}.", curve.name, of(first.0, first.1));
    }
    format!(
        "{} ({unit}), {} values: {} first, {} last, {} least, {} most.",
        curve.name,
        grouped(count as u64),
        of(first.0, first.1),
        of(last.0, last.1),
        of(least.0, least.1),
        of(most.0, most.1)
    )
}

fn draw(curve: &Curve, x: &Scale, y: &Scale) -> Drawn {
    let points = thin(&curve.points, POINTS);
    let mean = (points.len() < curve.points.len()).then(|| mean(&curve.points, x, y));
    let (mut path, mut steps, mut values) = (String::new(), String::new(), String::new());
    for (at, (step, value)) in points.iter().enumerate() {
        let (verb, comma) = if at == 0 { ('M', "") } else { ('L', ",") };
        let (x, y) = (SIDE * x.at(*step as f64), SIDE * (1.0 - y.at(*value)));
        // Writing to a string cannot fail.
        let _ = write!(path, "{verb}{x:.1} {y:.1}");
        let _ = write!(steps, "{comma}{step}");
        let _ = write!(values, "{comma}{value:.6e}");
    }
    let dot = |(step, value): &(u64, f64)| [share(x.at(*step as f64)), share(1.0 - y.at(*value))];
    let dots = if points.len() > DOTS { Vec::new() } else { points.iter().map(dot).collect() };
    Drawn { name: curve.name, class: curve.class, path, mean, dots, steps, values }
}

/// Draws the mean of each stretch in its middle.
fn mean(points: &[(u64, f64)], x: &Scale, y: &Scale) -> String {
    let mut path = String::new();
    for stretch in points.chunks(points.len().div_ceil(MEANS)) {
        let verb = if path.is_empty() { 'M' } else { 'L' };
        let value = stretch.iter().map(|(_, value)| value / stretch.len() as f64).sum();
        let step = stretch[stretch.len() / 2].0 as f64;
        // Writing to a string cannot fail.
        let _ = write!(path, "{verb}{:.1} {:.1}", SIDE * x.at(step), SIDE * (1.0 - y.at(value)));
    }
    path
}

/// Takes the lowest and the highest point of each stretch, and both ends, where there are more than `most` points:
/// no spike is lost.
fn thin(points: &[(u64, f64)], most: usize) -> Vec<(u64, f64)> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    if points.len() <= most {
        return points.to_vec();
    }
    let mut kept = vec![*first];
    for stretch in points[1..points.len() - 1].chunks(points.len().div_ceil(most / 2 - 1)) {
        let by_value = |left: &usize, right: &usize| stretch[*left].1.total_cmp(&stretch[*right].1);
        let least = (0..stretch.len()).min_by(by_value).unwrap_or(0);
        let most = (0..stretch.len()).max_by(by_value).unwrap_or(0);
        kept.push(stretch[least.min(most)]);
        if least != most {
            kept.push(stretch[least.max(most)]);
        }
    }
    kept.push(*last);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: Vec<(u64, f64)>) -> Curve {
        Curve { name: "loss", class: "train", points }
    }

    #[test]
    fn points_lie_where_the_marks_say() {
        let chart = Chart::new(
            ("loss", "Loss"),
            "nats",
            Layout::Zero,
            vec![curve(vec![(0, 4.0), (10, 1.0)])],
            &[0, 5],
        );
        let chart = chart.expect("points");
        assert_eq!(chart.curves[0].path, "M0.0 0.0L1000.0 750.0");
        assert_eq!(chart.curves[0].dots, [["0.00%", "0.00%"], ["100.00%", "75.00%"]]);
        assert_eq!((chart.curves[0].steps.as_str(), chart.starts.len()), ("0,10", 2));
        assert_eq!(chart.starts[1], "50.00%");
        let marks: Vec<_> =
            chart.y_marks.iter().map(|place| (place.at.as_str(), place.label.as_str())).collect();
        assert_eq!(
            marks,
            [("100.00%", "0"), ("75.00%", "1"), ("50.00%", "2"), ("25.00%", "3"), ("0.00%", "4")]
        );
        assert_eq!(
            chart.description,
            "loss (nats), 2 values: 4.0000 at step 0 first, 1.0000 at step 10 last, 1.0000 at step 10 least, \
             4.0000 at step 0 most."
        );
    }

    #[test]
    fn no_point_no_chart_and_one_point_is_a_dot() {
        let of = |points| Chart::new(("a", "A"), "u", Layout::Range, vec![curve(points)], &[]);
        assert!(of(vec![]).is_none());
        let one = of(vec![(1, 3.0)]).expect("a point");
        assert_eq!((one.curves[0].dots.len(), one.thinned), (1, false));
        assert_eq!(one.description, "loss (u): 3.0000 at step 1.");
    }

    #[test]
    fn thinning_keeps_ends_and_spikes() {
        let value = |step: u64| match step {
            70_001 => 900.0,
            70_002 => -900.0,
            _ => (step as f64).sin(),
        };
        let points: Vec<_> = (1..=100_000).map(|step| (step, value(step))).collect();
        let kept = thin(&points, POINTS);
        assert!(kept.len() <= POINTS, "{}", kept.len());
        assert!(kept.is_sorted_by(|left, right| left.0 < right.0));
        assert_eq!((kept[0], kept[kept.len() - 1]), (points[0], points[99_999]));
        assert!(kept.contains(&(70_001, 900.0)) && kept.contains(&(70_002, -900.0)));
        assert_eq!(thin(&points[..600], POINTS), points[..600]);
        assert!(thin(&points[..601], POINTS).len() <= POINTS);
        assert_eq!(thin(&[], POINTS), []);
        let chart = Chart::new(("a", "A"), "u", Layout::Range, vec![curve(points)], &[]).expect("points");
        assert!(chart.thinned && chart.curves[0].dots.is_empty());
        let mean = chart.curves[0].mean.as_ref().expect("a mean");
        assert_eq!(mean.matches('L').count(), MEANS - 1);
        assert!(mean.starts_with("M5.0 500."), "{}", &mean[..20]);
    }
}
