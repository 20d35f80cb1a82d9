//! Numbers with their noun or unit, as a person says them.

/// `1 message`, `312 messages`, `10,000 messages`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{} {many}", grouped(number)),
    }
}

/// `1,000,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `512 B`, `4.1 kB`, `80 MB`: decimal, like the sizes in the configuration.
pub fn size(bytes: u64) -> String {
    scaled(bytes, &[" B", " kB", " MB", " GB", " TB"])
}

/// The same in at most five letters: `512`, `4.1k`, `80M`.
pub fn short_size(bytes: u64) -> String {
    scaled(bytes, &["", "k", "M", "G", "T"])
}

fn scaled(bytes: u64, units: &[&str]) -> String {
    let (mut value, mut unit) = (bytes, 0);
    let mut tenths = 0;
    // Cut, not rounded: rounded, 999,999 would be 1000 kB.
    while value >= 1000 && unit + 1 < units.len() {
        tenths = value % 1000 / 100;
        value /= 1000;
        unit += 1;
    }
    if value < 10 && tenths > 0 && unit > 0 {
        format!("{value}.{tenths}{}", units[unit])
    } else {
        format!("{value}{}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_and_short() {
        for (bytes, long, short) in [
            (0, "0 B", "0"),
            (999, "999 B", "999"),
            (1_000, "1 kB", "1k"),
            (4_196, "4.1 kB", "4.1k"),
            (80_000_000, "80 MB", "80M"),
            (999_999, "999 kB", "999k"),
            (3_100_000, "3.1 MB", "3.1M"),
            (u64::MAX, "18446744 TB", "18446744T"),
        ] {
            assert_eq!(size(bytes), long);
            assert_eq!(short_size(bytes), short);
        }
    }

    #[test]
    fn numbers_are_grouped_and_agree_with_their_noun() {
        assert_eq!(count(0, "message", "messages"), "0 messages");
        assert_eq!(count(1, "message", "messages"), "1 message");
        assert_eq!(
            count(1_000_000, "message", "messages"),
            "1,000,000 messages"
        );
        assert_eq!(grouped(999), "999");
    }
}
