//! The date that `strftime_now` tells.

use minijinja::{Error, ErrorKind};

/// A day, at midnight. The default is 26 July 2024, the date Llama 3's own template falls back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// For example 2024.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

impl Default for Date {
    fn default() -> Self {
        Self { year: 2024, month: 7, day: 26 }
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    /// Formats the date like C's `strftime`, for the directives templates use.
    pub(super) fn format(self, format: &str) -> Result<String, Error> {
        let month = MONTHS[usize::from(self.month.clamp(1, 12)) - 1];
        let weekday = DAYS[self.weekday()];
        let mut text = String::new();
        let mut rest = format.chars();
        while let Some(letter) = rest.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            let part = match rest.next() {
                Some('Y') => self.year.to_string(),
                Some('y') => format!("{:02}", self.year % 100),
                Some('m') => format!("{:02}", self.month),
                Some('d') => format!("{:02}", self.day),
                Some('e') => format!("{:2}", self.day),
                Some('B') => month.to_owned(),
                Some('b' | 'h') => month[..3].to_owned(),
                Some('A') => weekday.to_owned(),
                Some('a') => weekday[..3].to_owned(),
                Some('F') => format!("{:04}-{:02}-{:02}", self.year, self.month, self.day),
                Some('H' | 'M' | 'S') => "00".to_owned(),
                Some('I') => "12".to_owned(),
                Some('p') => "AM".to_owned(),
                Some('%') => "%".to_owned(),
                other => {
                    let directive = other.map_or(String::new(), String::from);
                    let reason = format!("`strftime_now` does not know `%{directive}`");
                    return Err(Error::new(ErrorKind::InvalidOperation, reason));
                }
            };
            text.push_str(&part);
        }
        Ok(text)
    }

    /// Day of the week, Sunday is 0 (Sakamoto's method).
    fn weekday(self) -> usize {
        const SHIFT: [usize; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let month = usize::from(self.month.clamp(1, 12));
        let year = usize::from(self.year).saturating_sub(usize::from(month < 3));
        (year + year / 4 - year / 100 + year / 400 + SHIFT[month - 1] + usize::from(self.day)) % 7
    }
}

#[cfg(test)]
mod tests {
    use super::Date;

    #[test]
    fn formats_as_python_does() {
        // datetime(2024, 7, 26).strftime(...), datetime(2000, 2, 3).strftime(...)
        let date = Date::default();
        assert_eq!(date.format("%d %b %Y, %A %a %y-%m %B %H:%M %%").unwrap(), {
            "26 Jul 2024, Friday Fri 24-07 July 00:00 %"
        });
        assert_eq!(Date { year: 2000, month: 2, day: 3 }.format("%A %F").unwrap(), "Thursday 2000-02-03");
        assert!(date.format("%Q").unwrap_err().to_string().contains("`%Q`"));
    }
}
