//! Command lines with a limit.

use super::BareEndings;

/// Command lines, CRLF included: 512 octets (RFC 5321 section 4.5.3.1.4), and for MAIL
/// SIZE 26, BODY 17, SMTPUTF8 10, AUTH 500, RET 8, ENVID 107; for RCPT NOTIFY 28 and
/// ORCPT 507. One limit for all, and a little air.
pub const COMMAND_LINE_MAXIMUM: usize = 2_048;
/// Lines of an AUTH exchange, CRLF included (RFC 4954 section 4).
pub const AUTH_LINE_MAXIMUM: usize = 12_288;
/// An overlong line is read this far for its end; beyond, nobody means a command.
const DRAIN_MAXIMUM: usize = 1 << 20;

/// What [`CommandLines`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line, its end taken off.
    Complete(Vec<u8>),
    /// A line beyond the limit has ended; nothing of it was kept: 500, once.
    TooLong,
    /// A line ended in a bare LF, which is refused: 500 5.5.2, and end the connection,
    /// for what follows may be somebody else's words.
    BareLf,
    /// An overlong line that does not end: end the connection.
    Endless,
}

/// Cuts what arrives into command lines.
#[derive(Debug)]
pub struct CommandLines {
    line: Vec<u8>,
    limit: usize,
    endings: BareEndings,
    /// Octets of an overlong line passed over so far; none: the line is not overlong.
    drained: Option<usize>,
    last_was_cr: bool,
}

impl CommandLines {
    /// For a new connection.
    pub fn new(endings: BareEndings) -> Self {
        Self {
            line: Vec::new(),
            limit: COMMAND_LINE_MAXIMUM,
            endings,
            drained: None,
            last_was_cr: false,
        }
    }

    /// Sets the limit for the lines to come, CRLF included.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether no part of a line waits for its rest.
    pub fn is_between(&self) -> bool {
        self.line.is_empty() && self.drained.is_none()
    }

    /// Takes octets up to the end of one line; says how many, and the line if it is complete.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Option<Line>) {
        let (piece, ended) = match input.iter().position(|it| *it == b'\n') {
            Some(place) => (&input[..=place], true),
            None => (input, false),
        };
        let cr_before = match piece {
            [.., cr, b'\n'] => *cr == b'\r',
            _ => self.last_was_cr,
        };
        self.last_was_cr = piece.last().map_or(self.last_was_cr, |it| *it == b'\r');
        self.keep(piece);
        if !ended {
            let endless = self.drained.is_some_and(|it| it > DRAIN_MAXIMUM);
            return (piece.len(), endless.then_some(Line::Endless));
        }
        let overlong = self.drained.take().is_some();
        let mut line = std::mem::take(&mut self.line);
        let found = match (overlong, cr_before, self.endings) {
            (_, false, BareEndings::Refuse) => Line::BareLf,
            (true, ..) => Line::TooLong,
            (false, crlf, _) => {
                line.truncate(line.len() - if crlf { 2 } else { 1 });
                Line::Complete(line)
            }
        };
        (piece.len(), Some(found))
    }

    /// Adds to the line, or drops it once it is beyond the limit.
    fn keep(&mut self, piece: &[u8]) {
        match &mut self.drained {
            Some(drained) => *drained = drained.saturating_add(piece.len()),
            None if self.line.len() + piece.len() > self.limit => {
                self.drained = Some(self.line.len() + piece.len());
                self.line = Vec::new();
            }
            None => self.line.extend_from_slice(piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything found in `input` when it arrives in pieces of `size` octets.
    fn lines(input: &[u8], size: usize, endings: BareEndings) -> Vec<Line> {
        let mut reader = CommandLines::new(endings);
        let mut found = Vec::new();
        for mut piece in input.chunks(size) {
            while !piece.is_empty() {
                let (consumed, line) = reader.feed(piece);
                piece = &piece[consumed..];
                found.extend(line);
            }
        }
        found
    }

    fn complete(text: &str) -> Line {
        Line::Complete(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_are_found_at_every_split() {
        let input = b"EHLO a\r\n\r\nNOOP \rx\r\nQUIT\r\n";
        for size in 1..=input.len() {
            assert_eq!(
                lines(input, size, BareEndings::Refuse),
                [
                    complete("EHLO a"),
                    complete(""),
                    complete("NOOP \rx"),
                    complete("QUIT")
                ]
            );
        }
    }

    #[test]
    fn a_bare_lf_is_refused_or_repaired() {
        for size in 1..=12 {
            assert_eq!(
                lines(b"NOOP\nQUIT\r\n", size, BareEndings::Refuse),
                [Line::BareLf, complete("QUIT")]
            );
            assert_eq!(
                lines(b"NOOP\nQUIT\r\n", size, BareEndings::Repair),
                [complete("NOOP"), complete("QUIT")]
            );
        }
    }

    #[test]
    fn an_overlong_line_is_drained_and_told_of_once() {
        let long = vec![b'x'; COMMAND_LINE_MAXIMUM - 1];
        let input = [&long[..], b"\r\nNOOP\r\n"].concat();
        for size in [1, 7, 1_000, 5_000] {
            assert_eq!(
                lines(&input, size, BareEndings::Refuse),
                [Line::TooLong, complete("NOOP")]
            );
        }
        let fits = [&long[1..], b"\r\n"].concat();
        assert_eq!(
            lines(&fits, 100, BareEndings::Refuse),
            [Line::Complete(long[1..].to_vec())]
        );
    }

    #[test]
    fn a_line_without_end_is_neither_kept_nor_read_for_ever() {
        let mut reader = CommandLines::new(BareEndings::Refuse);
        let piece = [b'x'; 4_096];
        let fed = (0..1_000).find(|_| reader.feed(&piece).1 == Some(Line::Endless));
        assert!(fed.is_some());
        assert_eq!(reader.line.capacity(), 0, "nothing of it is kept");
    }

    proptest! {
        #[test]
        fn splits_change_nothing(input in "[a\r\n]{0,30}", size in 1usize..10, repair: bool) {
            let endings = if repair { BareEndings::Repair } else { BareEndings::Refuse };
            prop_assert_eq!(
                lines(input.as_bytes(), size, endings),
                lines(input.as_bytes(), 1_000, endings)
            );
        }
    }
}
