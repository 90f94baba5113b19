//! Numbers as people read them.

/// Writes a count with commas between thousands.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a whole number of any sign like [`grouped`].
pub(super) fn grouped_signed(value: f64) -> String {
    let sign = if value <= -0.5 { "-" } else { "" };
    format!("{sign}{}", grouped(value.abs().round() as u64))
}

/// Writes a measured value with four places, fewer where it is large, or with a power of ten where these would
/// say little.
pub(super) fn measured(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1e-3..1e3 => format!("{value:.4}"),
        1e3..1e6 => format!("{value:.1}"),
        _ => format!("{value:.3e}"),
    }
}

/// Writes a duration like `1 h 02 min`, `2 min 03 s` or `4.2 s`.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{} h {minutes:02} min", grouped(hours)),
    }
}

/// Writes a share as a percentage.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([-1200.0, -0.1, 7.0].map(grouped_signed), ["-1,200", "0", "7"]);
        assert_eq!(measured(2.34567), "2.3457");
        assert_eq!([0.0, 1e-3, 4e-7, 2e9].map(measured), ["0", "0.0010", "4.000e-7", "2.000e9"]);
        assert_eq!(measured(-1234.56), "-1234.6");
        assert_eq!(
            [-1.0, 4.24, 59.96, 123.4, 3725.0].map(duration)[1..],
            ["4.2 s", "1 min 00 s", "2 min 03 s", "1 h 02 min"]
        );
        assert_eq!((percent(1, 3), percent(0, 0)), ("33.3 %".to_owned(), "-".to_owned()));
    }
}
