//! Where the addresses stand in an address list, however it is written.
//!
//! Looser than the daemon's own reading of From, because programs write `root`,
//! `root (Cron Daemon)` or a list of a thousand: this finds the places, and whether there
//! is an address is decided where one is needed.

use std::ops::Range;

/// The places of the addresses in the body of an address field: inside the angle brackets,
/// or the whole element without comments around it (RFC 5322 section 3.4).
///
/// Commas, colons and brackets count for nothing inside quotes, comments and address
/// literals. A group's name is no address; its members are.
pub fn places(body: &[u8]) -> Vec<Range<usize>> {
    let mut list = List::default();
    let mut place = 0;
    while place < body.len() {
        match body[place] {
            b'"' => {
                let end = quoted_end(body, place);
                list.word(place..end);
                place = end;
                continue;
            }
            b'(' => {
                place = comment_end(body, place);
                continue;
            }
            b'[' => {
                let end = past(body, place, b']');
                list.word(place..end);
                place = end;
                continue;
            }
            b'<' => {
                let end = past(body, place, b'>');
                let closed = body[..end].last() == Some(&b'>') && end > place + 1;
                list.angle = Some(place + 1..end - usize::from(closed));
                place = end;
                continue;
            }
            b',' | b';' => list.end(body),
            // What stood before a colon was the name of a group.
            b':' => list.forget(),
            octet if octet.is_ascii_whitespace() => {}
            _ => list.word(place..place + 1),
        }
        place += 1;
    }
    list.end(body);
    list.found
}

#[derive(Default)]
struct List {
    found: Vec<Range<usize>>,
    angle: Option<Range<usize>>,
    plain: Option<Range<usize>>,
}

impl List {
    fn word(&mut self, range: Range<usize>) {
        let start = self.plain.as_ref().map_or(range.start, |it| it.start);
        self.plain = Some(start..range.end);
    }

    fn forget(&mut self) {
        (self.angle, self.plain) = (None, None);
    }

    /// An element is complete.
    fn end(&mut self, body: &[u8]) {
        let plain = self.plain.take();
        if let Some(range) = self.angle.take().or(plain) {
            let range = trimmed(body, range);
            if !range.is_empty() {
                self.found.push(range);
            }
        }
    }
}

fn trimmed(body: &[u8], range: Range<usize>) -> Range<usize> {
    let text = &body[range.clone()];
    let before = text.len() - text.trim_ascii_start().len();
    let start = range.start + before;
    start..start + text.trim_ascii().len()
}

/// Behind the quote that closes the one at `start`.
fn quoted_end(body: &[u8], start: usize) -> usize {
    let mut place = start + 1;
    while place < body.len() {
        match body[place] {
            b'\\' => place += 1,
            b'"' => return place + 1,
            _ => {}
        }
        place += 1;
    }
    body.len()
}

/// Behind the parenthesis that closes the one at `start`; comments nest.
fn comment_end(body: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut place = start;
    while place < body.len() {
        match body[place] {
            b'\\' => place += 1,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        place += 1;
        if depth == 0 {
            return place;
        }
    }
    body.len()
}

/// Behind the next `end`; quotes inside the brackets may hold one, too.
fn past(body: &[u8], start: usize, end: u8) -> usize {
    let mut place = start + 1;
    while place < body.len() {
        match body[place] {
            b'"' => {
                place = quoted_end(body, place);
                continue;
            }
            octet if octet == end => return place + 1,
            _ => place += 1,
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> Vec<&str> {
        places(body.as_bytes())
            .into_iter()
            .map(|it| &body[it])
            .collect()
    }

    #[test]
    fn addresses_are_found_however_the_list_is_written() {
        assert_eq!(found("jan@uwdomein.nl"), ["jan@uwdomein.nl"]);
        assert_eq!(
            found("Jan Jansen <jan@uwdomein.nl>, piet@x.nl"),
            ["jan@uwdomein.nl", "piet@x.nl"]
        );
        assert_eq!(
            found("\"Jansen, Jan\" <jan@uwdomein.nl>"),
            ["jan@uwdomein.nl"]
        );
        assert_eq!(found("jan@x.nl (Jan, the < first)"), ["jan@x.nl"]);
        assert_eq!(found("root (Cron Daemon)"), ["root"]);
        assert_eq!(found("\"CronDaemon\" <root>"), ["root"]);
        assert_eq!(found("undisclosed-recipients:;"), Vec::<&str>::new());
        assert_eq!(
            found("team: a@x.nl, B <b@x.nl>; c@x.nl"),
            ["a@x.nl", "b@x.nl", "c@x.nl"]
        );
        assert_eq!(
            found("jan@[IPv6:::1], \"a,b\"@x.nl"),
            ["jan@[IPv6:::1]", "\"a,b\"@x.nl"]
        );
        assert_eq!(found("a@x.nl,\r\n\tb@x.nl ,, "), ["a@x.nl", "b@x.nl"]);
        assert_eq!(found(" < a@x.nl > "), ["a@x.nl"]);
    }

    #[test]
    fn what_never_closes_ends_with_the_field() {
        for text in [
            "\"abc", "(abc", "<abc", "[abc", "a\\", "\"a\\", "(a(b)", "<", "(", ":", ";", ")",
        ] {
            places(text.as_bytes());
        }
        assert_eq!(found("<abc"), ["abc"]);
    }
}
