//! Numbers with their noun, as a person says them.

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

#[cfg(test)]
mod tests {
    use super::*;

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
