//! The histogram of lengths as the template draws it.

use serde::Serialize;

use super::chart::{Place, place, share};
use super::facts::Histogram;
use super::numbers::grouped;
use super::scale::{Mark, Scale};

/// A histogram as the template draws it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Lengths {
    width: String,
    description: String,
    x_marks: Vec<Place>,
    y_marks: Vec<Place>,
    bars: Vec<Bar>,
}

/// A bar, placed, with what it counts.
#[derive(Clone, Debug, Serialize)]
struct Bar {
    x: String,
    width: String,
    y: String,
    height: String,
    /// The lengths that it counts.
    lengths: String,
    count: String,
}

impl Lengths {
    /// Places the bars; nothing where there are none, or none that could have been counted.
    pub(super) fn new(histogram: &Histogram) -> Option<Lengths> {
        const LIMIT: usize = 1000;
        let Histogram { width, counts } = histogram;
        let end = width.checked_mul(counts.len() as u64).filter(|end| *end > 0)?;
        if counts.len() > LIMIT {
            return None;
        }
        let x = Scale::steps(0, end);
        let y = Scale::values(counts.iter().map(|count| *count as f64), true);
        let bar = |(at, count): (usize, &u64)| {
            let (from, height) = (at as u64 * width, y.at(*count as f64));
            Bar {
                x: share(x.at(from as f64)),
                width: share(x.at((from + width) as f64) - x.at(from as f64)),
                y: share(1.0 - height),
                height: share(height),
                lengths: match width {
                    1 => grouped(from + 1),
                    _ => format!("{} to {}", grouped(from + 1), grouped(from + width)),
                },
                count: grouped(*count),
            }
        };
        // Counts are whole, so marks between whole numbers mean nothing.
        let whole = |mark: &&Mark| mark.value.fract() == 0.0;
        let samples = counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
        Some(Lengths {
            width: grouped(*width),
            description: format!(
                "Lengths of {} training samples in tokens, in {} bars of {} tokens.",
                grouped(samples),
                counts.len(),
                grouped(*width)
            ),
            x_marks: x.marks().iter().map(|mark| place(mark, x.at(mark.value))).collect(),
            y_marks: y.marks().iter().filter(whole).map(|mark| place(mark, 1.0 - y.at(mark.value))).collect(),
            bars: counts.iter().enumerate().map(bar).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_side_by_side() {
        let bars = Lengths::new(&Histogram { width: 20, counts: vec![1, 0, 4, 3] }).expect("bars");
        let second = &bars.bars[2];
        assert_eq!((second.x.as_str(), second.width.as_str()), ("50.00%", "25.00%"));
        assert_eq!((second.y.as_str(), second.height.as_str()), ("0.00%", "100.00%"));
        assert_eq!((second.lengths.as_str(), second.count.as_str()), ("41 to 60", "4"));
        let single = Lengths::new(&Histogram { width: 1, counts: vec![1, 2] }).expect("bars");
        assert_eq!(single.bars[1].lengths, "2");
        for broken in [(0, vec![1]), (3, vec![]), (u64::MAX, vec![1, 1]), (1, vec![1; 5000])] {
            assert!(Lengths::new(&Histogram { width: broken.0, counts: broken.1 }).is_none());
        }
    }
}
