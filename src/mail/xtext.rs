//! The encodings of ENVID and ORCPT: xtext (RFC 3461 section 4) and, for addresses beyond
//! ASCII, utf-8-addr-xtext (RFC 6533 section 3).

use std::fmt::Write;

use super::text::steers;

/// Writes printable ASCII as xtext: `+`, `=`, the space and what is not printable become `+XX`.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        if (b'!'..=b'~').contains(&octet) && octet != b'+' && octet != b'=' {
            encoded.push(char::from(octet));
        } else {
            write!(encoded, "+{octet:02X}").expect("a String takes everything");
        }
    }
    encoded
}

/// Reads xtext; none if it is malformed or says anything but printable ASCII.
///
/// RFC 3461 sections 4.2 and 4.4 allow graphic characters and white space only. That
/// matters: what is read here is printed into reports, where a line break would forge
/// a field.
pub fn decode(encoded: &str) -> Option<String> {
    let mut text = String::with_capacity(encoded.len());
    let mut octets = encoded.bytes();
    while let Some(octet) = octets.next() {
        let said = match octet {
            b'+' => hexadecimal(octets.next()?)? << 4 | hexadecimal(octets.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => octet,
            _ => return None,
        };
        if !(b' '..=b'~').contains(&said) {
            return None;
        }
        text.push(char::from(said));
    }
    Some(text)
}

/// One digit of `hexchar`; the standard wants capitals, old clients write both.
fn hexadecimal(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Writes an address as utf-8-addr-xtext, which is ASCII and so fits any server with DSN.
pub fn encode_utf8_address(address: &str) -> String {
    let mut encoded = String::with_capacity(address.len());
    for letter in address.chars() {
        if matches!(letter, '!'..='~') && !matches!(letter, '+' | '=' | '\\') {
            encoded.push(letter);
        } else {
            write!(encoded, "\\x{{{:02X}}}", u32::from(letter)).expect("a String takes everything");
        }
    }
    encoded
}

/// Writes an address as utf-8-addr-unitext: the same, with letters beyond ASCII as they are.
pub fn utf8_address(address: &str) -> String {
    let mut written = String::with_capacity(address.len());
    for letter in address.chars() {
        if letter.is_ascii() || steers(letter) {
            written.push_str(&encode_utf8_address(letter.encode_utf8(&mut [0; 4])));
        } else {
            written.push(letter);
        }
    }
    written
}

/// Reads utf-8-addr-xtext or utf-8-addr-unitext (the same with UTF-8 as it is).
pub fn decode_utf8_address(encoded: &str) -> Option<String> {
    let mut address = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        let said = match letter {
            '\\' => {
                let (digits, behind) = rest.strip_prefix("x{")?.split_once('}')?;
                rest = behind;
                let digit = |it: u8| it.is_ascii_hexdigit();
                if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(digit) {
                    return None;
                }
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            '+' | '=' | ' ' => return None,
            _ => letter,
        };
        if said.is_control() {
            return None;
        }
        address.push(said);
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_standards_are_read() {
        assert_eq!(decode("a+2Bb+3Dc+20d"), Some("a+b=c d".into()));
        assert_eq!(
            decode_utf8_address(r"j\x{FC}rgen\x{2B}x@b"),
            Some("jürgen+x@b".into())
        );
        assert_eq!(decode_utf8_address("jürgen@b"), Some("jürgen@b".into()));
    }

    #[test]
    fn line_breaks_and_malformed_escapes_are_refused() {
        for text in [
            "+0D+0A", "+", "+2", "+2x", "a=b", "a b", "+C3+BC", "ü", "\u{7f}",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
        for text in [
            r"\x{D}",
            r"\x{}",
            r"\x{110000}",
            r"\x{D800}",
            r"\x",
            r"\",
            "a+b",
            r"\x{0000041}",
            "\u{85}",
        ] {
            assert_eq!(decode_utf8_address(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(ascii in "[ -~]{0,60}", address in "\\PC{0,40}") {
            prop_assert_eq!(decode(&encode(&ascii)), Some(ascii));
            prop_assert!(encode_utf8_address(&address).is_ascii());
            prop_assert_eq!(decode_utf8_address(&encode_utf8_address(&address)), Some(address.clone()));
            prop_assert_eq!(decode_utf8_address(&utf8_address(&address)), Some(address));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,40}|[\\\\x{}+=0-9A-F]{0,20}") {
            decode(&text);
            decode_utf8_address(&text);
        }
    }
}
