//! Words that a peer said, made fit to be shown.

/// Shortens and escapes what a peer said, so that it can stand in a log line, a
/// terminal, a report or a Received field and do nothing there but be read.
///
/// Control characters (C0, DEL, C1) and characters that steer the direction of text
/// (bidi marks, embeddings, isolates) or break lines are written as `\u{..}`; octets
/// that are not UTF-8 become U+FFFD. The result has at most `limit` characters, of
/// which the last is `…` when something was cut off.
pub fn printable(said: &[u8], limit: usize) -> String {
    // Four octets make at most one character: more are never needed.
    let enough = &said[..said.len().min(limit.saturating_mul(4).saturating_add(4))];
    let mut shown = String::new();
    let mut length = 0;
    for letter in String::from_utf8_lossy(enough).chars() {
        let piece = if steers(letter) {
            letter.escape_unicode().to_string()
        } else {
            letter.to_string()
        };
        length += piece.chars().count();
        if length > limit {
            while shown.chars().count() >= limit {
                if shown.pop().is_none() {
                    return shown;
                }
            }
            shown.push('…');
            return shown;
        }
        shown.push_str(&piece);
    }
    shown
}

/// Of a secret, this many characters are enough to be hidden: who shortens what is
/// echoed still shows the front of it.
const FRONT: usize = 6;

/// Puts `***` wherever a text has this secret in it, or the front of it.
pub fn hide(text: &mut String, secret: &str) {
    if secret.len() > 3 && text.contains(secret) {
        *text = text.replace(secret, "***");
    }
    let Some(front) = secret.get(..FRONT) else {
        return;
    };
    while let Some(start) = text.find(front) {
        let same = text[start..].chars().zip(secret.chars());
        let same = same.take_while(|(one, other)| one == other);
        let end = start + same.map(|(it, _)| it.len_utf8()).sum::<usize>();
        text.replace_range(start..end, "***");
    }
}

/// Whether a character would act on a terminal or a reader rather than be read.
pub fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_secret_neither_the_whole_nor_its_front_is_shown() {
        for (said, shown) in [
            ("what is s3cr3t-tökén?", "what is ***?"),
            ("what is s3cr3t-tö...", "what is ***..."),
            ("s3cr3t s3cr3t-x", "*** ***x"),
            ("s3cr3", "s3cr3"),
        ] {
            let mut text = said.to_owned();
            hide(&mut text, "s3cr3t-tökén");
            assert_eq!(text, shown);
        }
        let mut short = "a password".to_owned();
        hide(&mut short, "pas");
        assert_eq!(short, "a password");
    }

    #[test]
    fn ordinary_words_stay_as_they_are() {
        assert_eq!(
            printable("Grüße, 你好 <a@b>".as_bytes(), 80),
            "Grüße, 你好 <a@b>"
        );
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(printable(b"\x1b[2Jok\r\n", 80), "\\u{1b}[2Jok\\u{d}\\u{a}");
        assert_eq!(printable("a\u{202e}b".as_bytes(), 80), "a\\u{202e}b");
        assert_eq!(printable(b"\xff", 80), "\u{fffd}");
    }

    #[test]
    fn long_words_are_cut_at_the_limit() {
        assert_eq!(printable(b"abcdef", 6), "abcdef");
        assert_eq!(printable(b"abcdefg", 6), "abcde…");
        assert_eq!(printable(&[b'x'; 100_000], 10).chars().count(), 10);
        assert_eq!(
            printable(&[1u8; 100], 7).chars().count(),
            6,
            "an escape is never cut in two"
        );
        assert_eq!(printable(b"abc", 0), "");
    }
}
