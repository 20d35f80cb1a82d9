//! The message on standard input, as lines that end with CRLF.

use std::io::{self, BufRead};

/// Octets that are read at once.
const PIECE: usize = 64 * 1024;

/// A message that is being read.
pub struct Message<R> {
    reader: R,
    lines: LineEndings,
    ended: bool,
}

impl<R: BufRead> Message<R> {
    /// A message that ends with the input, or with a line of one dot unless those are ignored.
    pub fn new(reader: R, ignore_dots: bool) -> Self {
        Self {
            reader,
            lines: LineEndings::new(ignore_dots),
            ended: false,
        }
    }

    /// Appends the next piece to `out`; false when there is none.
    pub fn read(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let piece = self.reader.fill_buf()?;
        let length = piece.len().min(PIECE);
        self.ended = match length {
            0 => {
                self.lines.finish(out);
                true
            }
            _ => self.lines.feed(&piece[..length], out),
        };
        self.reader.consume(length);
        Ok(true)
    }
}

/// Makes every line end with CRLF: `\n`, `\r\n`, `\r\r\n` and a `\r` alone are each one end.
///
/// Programs write all of these. Nobody can smuggle by it: this side of the connection
/// decides where the message ends, and dots are stuffed afterwards.
struct LineEndings {
    ignore_dots: bool,
    place: Place,
    carriage_return: bool,
}

/// Where in its line the last octet was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing of the line was seen.
    Start,
    /// One dot and nothing else; it was not passed on yet.
    Dot,
    /// Anything else.
    Inside,
}

impl LineEndings {
    fn new(ignore_dots: bool) -> Self {
        Self {
            ignore_dots,
            place: Place::Start,
            carriage_return: false,
        }
    }

    /// Appends a piece; true when the line with the dot ended the message.
    fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> bool {
        for octet in piece {
            match octet {
                b'\n' => {
                    self.carriage_return = false;
                    if self.end_line(out) {
                        return true;
                    }
                }
                b'\r' => self.carriage_return = true,
                other => {
                    if std::mem::take(&mut self.carriage_return) && self.end_line(out) {
                        return true;
                    }
                    self.octet(*other, out);
                }
            }
        }
        false
    }

    /// The input is at its end: so is its last line.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.carriage_return || self.place != Place::Start {
            self.end_line(out);
        }
    }

    fn octet(&mut self, octet: u8, out: &mut Vec<u8>) {
        match self.place {
            Place::Start if octet == b'.' => {
                self.place = Place::Dot;
                return;
            }
            Place::Dot => out.push(b'.'),
            Place::Start | Place::Inside => {}
        }
        self.place = Place::Inside;
        out.push(octet);
    }

    /// Ends a line; true when it was the one with the dot.
    fn end_line(&mut self, out: &mut Vec<u8>) -> bool {
        if self.place == Place::Dot {
            if !self.ignore_dots {
                return true;
            }
            out.push(b'.');
        }
        self.place = Place::Start;
        out.extend_from_slice(b"\r\n");
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text as read in pieces of every size.
    fn read(text: &str, ignore_dots: bool) -> String {
        let mut results = Vec::new();
        for size in 1..=text.len().max(1) {
            let reader = io::BufReader::with_capacity(size, text.as_bytes());
            let mut message = Message::new(reader, ignore_dots);
            let mut out = Vec::new();
            while message.read(&mut out).unwrap() {}
            results.push(String::from_utf8(out).unwrap());
        }
        results.dedup();
        assert_eq!(results.len(), 1, "{text:?}: {results:?}");
        results.remove(0)
    }

    #[test]
    fn every_kind_of_line_end_becomes_crlf() {
        assert_eq!(
            read("a\nb\r\nc\r\r\nd\re", true),
            "a\r\nb\r\nc\r\nd\r\ne\r\n"
        );
        assert_eq!(read("a\n\n\nb", true), "a\r\n\r\n\r\nb\r\n");
        assert_eq!(read("", true), "");
        assert_eq!(read("\n", true), "\r\n");
        assert_eq!(read("a\r", true), "a\r\n");
    }

    #[test]
    fn a_dot_alone_ends_the_message_unless_dots_are_ignored() {
        assert_eq!(read("a\n.\nb\n", false), "a\r\n");
        assert_eq!(read("a\n.\nb\n", true), "a\r\n.\r\nb\r\n");
        assert_eq!(read("a\n.", false), "a\r\n");
        assert_eq!(read("a\n.b\n..\n", false), "a\r\n.b\r\n..\r\n");
        assert_eq!(read("a\r\n.\r\nb\r\n", false), "a\r\n");
    }
}
