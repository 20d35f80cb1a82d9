//! Durations, sizes and shares as people write them.
//!
//! Every `write_` prints what its `read_` takes: `config show` can be pasted back.

use std::time::Duration;

/// The units of a duration in milliseconds, longest first.
const DURATION_UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The units of a size, decimal and binary.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads `5m`, `1h30m`, `250ms`: whole numbers, each with its unit, the longest unit first.
pub fn read_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0_u64;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let (number, behind) = digits(rest)?;
        let end = behind
            .find(|it: char| it.is_ascii_digit())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let unit = unit.trim();
        let (_, length) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
        if *length >= last {
            return None;
        }
        last = *length;
        total = total.checked_add(number.checked_mul(*length)?)?;
        rest = behind;
    }
    (last != u64::MAX).then(|| Duration::from_millis(total))
}

/// The shortest text that [`read_duration`] reads back; finer than a millisecond is cut off.
pub fn write_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    // A week is read but not written: "7d" is plainer than "1w", and "10d" than "1w3d".
    for (unit, length) in &DURATION_UNITS[1..] {
        if left >= *length {
            text.push_str(&format!("{}{unit}", left / length));
            left %= length;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// Reads `80MB` (decimal), `64KiB` (binary), `512B`.
pub fn read_size(text: &str) -> Option<u64> {
    let (number, unit) = digits(text.trim())?;
    let unit = unit.trim();
    let (_, factor) = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// The shortest text that [`read_size`] reads back.
pub fn write_size(octets: u64) -> String {
    SIZE_UNITS
        .iter()
        .filter(|(_, factor)| octets >= *factor && octets.is_multiple_of(*factor))
        .min_by_key(|(_, factor)| octets / factor)
        .map_or_else(
            || format!("{octets}B"),
            |(unit, factor)| format!("{}{unit}", octets / factor),
        )
}

/// Reads `5%` or `0.5%`, at most three decimals; whether it is too much, its reader knows.
pub fn read_percent(text: &str) -> Option<f64> {
    let number = text.trim().strip_suffix('%')?.trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let plain = |it: &str, most| {
        !it.is_empty() && it.len() <= most && it.bytes().all(|b| b.is_ascii_digit())
    };
    if !plain(whole, 9) || !plain(decimals, 3) {
        return None;
    }
    number.parse().ok()
}

/// The text that [`read_percent`] reads back.
pub fn write_percent(percent: f64) -> String {
    let text = format!("{percent:.3}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Takes a whole number off the front; an underscore may part its digits, as in TOML.
fn digits(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|it: char| !it.is_ascii_digit() && it != '_')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    if number.starts_with('_') || number.ends_with('_') {
        return None;
    }
    Some((number.replace('_', "").parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("5m", 300),
            ("1h30m", 5_400),
            ("1h 30m", 5_400),
            ("90s", 90),
            ("4d", 345_600),
            ("1w", 604_800),
            ("0s", 0),
        ] {
            assert_eq!(
                read_duration(text),
                Some(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        assert_eq!(read_duration("250ms"), Some(Duration::from_millis(250)));
        for text in [
            "",
            "5",
            "soon",
            "m",
            "-5m",
            "5 minutes",
            "1m1h",
            "1m1m",
            "1.5h",
            "5M",
            "99999999999999999999d",
            "9999999999999999d",
        ] {
            assert_eq!(read_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_decimal_unless_written_binary() {
        assert_eq!(read_size("80MB"), Some(80_000_000));
        assert_eq!(read_size("80 mb"), Some(80_000_000));
        assert_eq!(read_size("64KiB"), Some(65_536));
        assert_eq!(read_size("512B"), Some(512));
        assert_eq!(read_size("1_000B"), Some(1_000));
        for text in ["", "80", "80M", "1.5MB", "-1B", "99999999999TB"] {
            assert_eq!(read_size(text), None, "{text}");
        }
    }

    #[test]
    fn shares_are_percent() {
        assert_eq!(read_percent("5%"), Some(5.0));
        assert_eq!(read_percent("0.5 %"), Some(0.5));
        for text in ["", "5", "%", "-1%", "1e1%", ".5%", "5.%", "NaN%"] {
            assert_eq!(read_percent(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..10_000_000_000_u64, octets: u64, thousandth in 0..100_000_u32) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(read_duration(&write_duration(duration)), Some(duration));
            prop_assert_eq!(read_size(&write_size(octets)), Some(octets));
            let percent = f64::from(thousandth) / 1000.0;
            prop_assert_eq!(read_percent(&write_percent(percent)), Some(percent));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,12}|[0-9_.]{0,22}[a-zA-Z%]{0,3}") {
            read_duration(&text);
            read_size(&text);
            read_percent(&text);
        }
    }
}
