//! Numbers, sizes and times as a person says them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub use crate::mail::count::{count, grouped, short_size, size};

/// What the words depend on: the moment and the place they are said.
#[derive(Debug, Clone)]
pub struct Words {
    /// Now.
    pub now: Timestamp,
    /// The reader's time zone.
    pub zone: TimeZone,
}

impl Words {
    /// `14:05`, with the date when that is another day.
    pub fn time(&self, at: Timestamp) -> String {
        let (then, now) = (
            at.to_zoned(self.zone.clone()),
            self.now.to_zoned(self.zone.clone()),
        );
        let format = if then.date() == now.date() {
            "%H:%M"
        } else if then.year() == now.year() {
            "%-d %b %H:%M"
        } else {
            "%-d %b %Y %H:%M"
        };
        then.strftime(format).to_string()
    }

    /// `14:05:09`, with the date when that is another day.
    pub fn precise(&self, at: Timestamp) -> String {
        let then = at.to_zoned(self.zone.clone());
        format!("{}{}", self.time(at), then.strftime(":%S"))
    }

    /// `in 3 min` or `3 min ago`.
    pub fn relative(&self, at: Timestamp) -> String {
        let away = at.duration_since(self.now);
        if away.as_secs() > 0 {
            format!("in {}", span(away.as_secs()))
        } else if away.as_secs() < 0 {
            format!("{} ago", span(-away.as_secs()))
        } else {
            "now".into()
        }
    }

    /// `14:05 (in 3 min)`.
    pub fn both(&self, at: Timestamp) -> String {
        format!("{} ({})", self.time(at), self.relative(at))
    }

    /// How long ago in at most three letters: `9s`, `59m`, `23h`, `4d`.
    pub fn age(&self, at: Timestamp) -> String {
        let age = self.now.duration_since(at).max(SignedDuration::ZERO);
        match age.as_secs() {
            seconds @ 0..=59 => format!("{seconds}s"),
            seconds @ 60..=3_599 => format!("{}m", seconds / 60),
            seconds @ 3_600..=86_399 => format!("{}h", seconds / 3_600),
            seconds => format!("{}d", seconds / 86_400),
        }
    }
}

/// A length of time in its largest fitting unit: `45 s`, `3 min`, `2 h`, `4 days`.
///
/// Rounds down, as clocks do; two units while the larger is small: `1 h 30 min`.
pub fn span(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..36_000 if seconds % 3_600 >= 60 => {
            format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60)
        }
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Reads a length of time as the configuration writes it: `90s`, `5m`, `2h`, `4d`.
pub fn parse_span(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a length of time like 90s, 15m, 2h or 4d");
    let (number, unit) = split_unit(text);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// Reads a size as the configuration writes it: `512`, `80MB`, `64KiB`; `80M` is taken, too.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size like 500kB, 10MB or 64KiB");
    let (number, unit) = split_unit(text);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|it: char| !it.is_ascii_digit())
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words {
            now: "2026-11-21T13:02:00Z".parse().unwrap(),
            zone: TimeZone::fixed(jiff::tz::offset(1)),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn times_are_local_and_say_how_far_away_they_are() {
        let words = words();
        assert_eq!(words.both(at("2026-11-21T13:05:30Z")), "14:05 (in 3 min)");
        assert_eq!(words.both(at("2026-11-21T13:01:15Z")), "14:01 (45 s ago)");
        assert_eq!(words.both(at("2026-11-21T13:02:00Z")), "14:02 (now)");
        assert_eq!(words.time(at("2026-11-21T23:30:00Z")), "22 Nov 00:30");
        assert_eq!(words.time(at("2025-11-21T13:30:00Z")), "21 Nov 2025 14:30");
        assert_eq!(words.precise(at("2026-11-21T13:01:15Z")), "14:01:15");
    }

    #[test]
    fn ages_fit_three_letters_for_nearly_three_years() {
        let words = words();
        for (then, age) in [
            ("2026-11-21T13:05:00Z", "0s"),
            ("2026-11-21T13:01:01Z", "59s"),
            ("2026-11-21T12:02:01Z", "59m"),
            ("2026-11-20T13:03:00Z", "23h"),
            ("2026-11-17T13:02:00Z", "4d"),
        ] {
            assert_eq!(words.age(at(then)), age);
        }
    }

    #[test]
    fn spans_have_two_units_while_it_matters() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_600, "1 h"),
            (5_400, "1 h 30 min"),
            (40_000, "11 h"),
            (100_000, "27 h"),
            (345_600, "4 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn spans_and_sizes_are_read_as_the_configuration_writes_them() {
        assert_eq!(parse_span("90s"), Ok(90));
        assert_eq!(parse_span("4d"), Ok(345_600));
        assert_eq!(parse_size("80MB"), Ok(80_000_000));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("10"), Ok(10));
        for wrong in [
            "",
            "5",
            "m",
            "-5m",
            "5 years",
            "99999999999999999999s",
            "18446744073709551615w",
        ] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "MB", "1.5MB", "-1", "1PB", "18446744073709551615k"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
