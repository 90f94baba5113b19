//! Axes: from data to a place in the plot, with round numbers marked on the way.

/// Marks of an axis, about.
const MARKS: f64 = 5.0;
/// From this ratio on, a range is shown by its powers of ten.
const WIDE: f64 = 300.0;

/// An axis. Values outside of it are drawn at its ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    marks: Vec<Mark>,
}

/// A number that is marked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    pub(super) value: f64,
    pub(super) label: String,
}

impl Scale {
    /// Makes an axis that holds all values and begins and ends at a mark; from zero on where `zero` says so.
    pub(super) fn values(values: impl Iterator<Item = f64> + Clone, zero: bool) -> Scale {
        let finite = values.filter(|value| value.is_finite());
        let low = finite.clone().fold(if zero { 0.0 } else { f64::INFINITY }, f64::min);
        let high = finite.fold(if zero { 0.0 } else { f64::NEG_INFINITY }, f64::max);
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        // A range that f64 hardly resolves is shown as one value with some room.
        let (low, high) = if high - low > 1e-9 * low.abs().max(high.abs()) {
            (low, high)
        } else {
            let room = if high == 0.0 { 1.0 } else { 0.5 * high.abs() };
            (if zero && high >= 0.0 { 0.0 } else { low - room }, high + room)
        };
        let step = round_step(high - low);
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        let marks: Vec<Mark> = marks(first, last, step);
        Scale { low: first * step, high: last * step, logarithmic: false, marks }
    }

    /// Makes an axis like [`Scale::values`], by powers of ten where positive values span several of them.
    pub(super) fn wide(values: impl Iterator<Item = f64> + Clone) -> Scale {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.clone().fold(f64::NEG_INFINITY, f64::max);
        if !(low > 0.0 && high.is_finite() && high / low >= WIDE) {
            return Scale::values(values, true);
        }
        let (first, last) = (low.log10().floor(), high.log10().ceil());
        let every = ((last - first) / MARKS).ceil().max(1.0);
        let count = ((last - first) / every).floor() as u32;
        let marks = (0..=count).map(|at| {
            let power = first + f64::from(at) * every;
            Mark { value: 10f64.powf(power), label: format!("1e{power}") }
        });
        Scale { low: first, high: last, logarithmic: true, marks: marks.collect() }
    }

    /// Makes an axis of steps, which begins and ends with the data.
    pub(super) fn steps(low: u64, high: u64) -> Scale {
        let low = if low < high { low } else { high.saturating_sub(1) };
        let (low, high) = (low as f64, high.max(low + 1) as f64);
        let step = round_step(high - low).max(1.0);
        let marks = marks((low / step).ceil(), (high / step).floor(), step);
        Scale { low, high, logarithmic: false, marks }
    }

    /// Returns where a value lies, from 0 at the low end to 1 at the high one.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        let share = (value - self.low) / (self.high - self.low);
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Returns the marks, from low to high.
    pub(super) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Whether equal distances are equal ratios.
    pub(super) fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }
}

/// Returns 1, 2 or 5 times a power of ten that divides a range into about [`MARKS`].
fn round_step(range: f64) -> f64 {
    let raw = range / MARKS;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0].map(|digit| digit * power).into_iter().find(|step| *step >= raw * 0.999);
    let step = step.unwrap_or(10.0 * power);
    if step.is_normal() { step } else { f64::MIN_POSITIVE }
}

fn marks(first: f64, last: f64, step: f64) -> Vec<Mark> {
    let count = (last - first).clamp(0.0, 3.0 * MARKS) as u32;
    (0..=count)
        .map(|at| (first + f64::from(at)) * step)
        .map(|value| Mark { value, label: label(value, step) })
        .collect()
}

/// Writes a marked value with the places that its step needs.
fn label(value: f64, step: f64) -> String {
    // Steps are 1, 2 or 5 times a power of ten, a little more or less.
    let power = (step * 1.001).log10().floor();
    if value.abs() < step * 0.5 {
        "0".to_owned()
    } else if power < -3.0 || value.abs() >= 1e12 {
        let digits = (value.abs().log10().floor() - power).clamp(0.0, 12.0) as usize;
        let text = format!("{value:.digits$e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let digits =
            if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
        format!("{digits}e{power}")
    } else if power >= 0.0 {
        super::numbers::grouped_signed(value)
    } else {
        format!("{value:.*}", -power as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.marks().iter().map(|mark| mark.label.as_str()).collect()
    }

    fn of(values: &[f64], zero: bool) -> Scale {
        Scale::values(values.iter().copied(), zero)
    }

    #[test]
    fn marks_are_round_and_hold_the_data() {
        let scale = of(&[1.234, 3.9], false);
        assert_eq!(labels(&scale), ["1", "2", "3", "4"]);
        assert_eq!((scale.at(1.0), scale.at(2.5), scale.at(4.0)), (0.0, 0.5, 1.0));
        assert_eq!(labels(&of(&[0.31, 0.34], false)), ["0.31", "0.32", "0.33", "0.34"]);
        assert_eq!(labels(&of(&[2e-4, 9.7e-4], true)), ["0", "2e-4", "4e-4", "6e-4", "8e-4", "1e-3"]);
        assert_eq!(labels(&of(&[1.0, 1789.0], true)), ["0", "500", "1,000", "1,500", "2,000"]);
        assert_eq!(labels(&of(&[-3.0, 4.0], false)), ["-4", "-2", "0", "2", "4"]);
    }

    #[test]
    fn hostile_values_make_an_axis_all_the_same() {
        let sets: [&[f64]; 9] = [
            &[],
            &[0.0],
            &[5.0],
            &[-5.0, -5.0],
            &[f64::NAN, f64::INFINITY],
            &[1e300, -1e300],
            &[f64::MAX, f64::MIN],
            &[5e-324, 1e-323],
            &[1e16, 1e16 + 2.0],
        ];
        for values in sets {
            for scale in [of(values, true), of(values, false), Scale::wide(values.iter().copied())] {
                let count = scale.marks().len();
                assert!((1..=16).contains(&count), "{values:?}: {scale:?}");
                for value in values {
                    assert!((0.0..=1.0).contains(&scale.at(*value)), "{values:?}: {scale:?}");
                }
            }
        }
    }

    #[test]
    fn several_powers_of_ten_are_shown_as_such() {
        let scale = Scale::wide([0.05, 3000.0].into_iter());
        assert!(scale.is_logarithmic());
        assert_eq!(labels(&scale), ["1e-2", "1e0", "1e2", "1e4"]);
        assert_eq!((scale.at(0.01), scale.at(10.0), scale.at(1e4)), (0.0, 0.5, 1.0));
        assert!(!Scale::wide([0.5, 3.0].into_iter()).is_logarithmic());
        assert!(!Scale::wide([0.0, 3000.0].into_iter()).is_logarithmic());
    }

    #[test]
    fn steps_begin_and_end_with_the_data() {
        let scale = Scale::steps(0, 60);
        assert_eq!(labels(&scale), ["0", "20", "40", "60"]);
        assert_eq!((scale.at(0.0), scale.at(30.0), scale.at(60.0)), (0.0, 0.5, 1.0));
        assert_eq!(labels(&Scale::steps(1, 1)), ["0", "1"]);
        assert_eq!(labels(&Scale::steps(0, 0)), ["0", "1"]);
        assert_eq!(labels(&Scale::steps(1, 3)), ["1", "2", "3"]);
        assert_eq!(
            labels(&Scale::steps(0, 100_000)),
            ["0", "20,000", "40,000", "60,000", "80,000", "100,000"]
        );
        assert!(Scale::steps(u64::MAX - 1, u64::MAX).marks().len() < 20);
    }
}
