//! Replies (RFC 5321 section 4.2): printed exactly, read with every length bounded.

use std::fmt;

use crate::mail::EnhancedStatus;
use crate::mail::text::printable;

/// RFC 5321 section 4.5.3.1.5 allows 512; servers that explain their policy write more.
const LINE_MAXIMUM: usize = 4_096;
/// An EHLO reply has about 20 lines, a talkative greeting some more.
const LINES_MAXIMUM: usize = 128;
/// Of one reply, all its lines together.
const REPLY_MAXIMUM: usize = 32_768;
/// What we send stays within the standard: code, separator, status, text, CRLF.
const LINE_SENT_MAXIMUM: usize = 512;
/// What [`Reply::text`] shows at most, in characters.
const TEXT_MAXIMUM: usize = 2_000;

/// What a server answers: a code, perhaps an enhanced status, and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced status (RFC 2034) when every line is to carry one.
    pub enhanced: Option<EnhancedStatus>,
    /// The text of each line, without code and enhanced status; as the peer said it, so
    /// not fit to be shown: [`text`](Self::text) is. Never empty.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply of one line without an enhanced status.
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: None,
            lines: vec![text.into()],
        }
    }

    /// A reply of one line with an enhanced status, of the class of the code.
    pub fn enhanced(code: u16, subject: u16, detail: u16, text: impl Into<String>) -> Self {
        let class = match code / 100 {
            4 => 4,
            5 => 5,
            _ => 2,
        };
        Self {
            code,
            enhanced: Some(EnhancedStatus::new(class, subject, detail)),
            lines: vec![text.into()],
        }
    }

    /// 2yz.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3yz: go on.
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4yz.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5yz.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The words alone, lines joined by `\n`, shortened and safe to show.
    pub fn text(&self) -> String {
        let mut shown = String::new();
        for line in &self.lines {
            let room = TEXT_MAXIMUM.saturating_sub(shown.chars().count() + 1);
            if room == 0 {
                break;
            }
            if !shown.is_empty() {
                shown.push('\n');
            }
            shown.push_str(&printable(line.as_bytes(), room));
        }
        shown
    }

    /// Appends the reply as it goes over the wire, each line ended by CRLF.
    ///
    /// A text that would break the line (a CR, LF or NUL in it) or exceed its limit is
    /// made harmless rather than trusted: texts here quote what clients said. So is what
    /// is not ASCII, which only a client that asked for it may get (RFC 6531 section 3.7.4).
    pub fn write(&self, out: &mut Vec<u8>) {
        let last = self.lines.len().saturating_sub(1);
        if self.lines.is_empty() {
            out.extend_from_slice(format!("{} \r\n", self.code).as_bytes());
        }
        for (place, line) in self.lines.iter().enumerate() {
            let start = out.len();
            let separator = if place == last { ' ' } else { '-' };
            out.extend_from_slice(format!("{}{separator}", self.code).as_bytes());
            if let Some(status) = self.enhanced {
                out.extend_from_slice(format!("{status} ").as_bytes());
            }
            let end = start + LINE_SENT_MAXIMUM - 2;
            for letter in line.chars() {
                match letter {
                    it if it.is_ascii_control() => out.push(b'?'),
                    it if it.is_ascii() => out.push(it as u8),
                    '…' => out.extend_from_slice(b"..."),
                    it => out.extend_from_slice(it.escape_unicode().to_string().as_bytes()),
                }
            }
            out.truncate(end);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The reply as it goes over the wire.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// A reply from its lines as received, codes already taken off.
    fn received(code: u16, mut lines: Vec<String>) -> Self {
        let enhanced = lines.first().and_then(|it| leading_status(it, code));
        if let Some(status) = enhanced {
            // Each line carries the status (RFC 2034 section 4); those that do not, or
            // carry another, stay whole.
            for line in &mut lines {
                if leading_status(line, code) == Some(status) {
                    let behind = line.find(' ').map_or(line.len(), |it| it + 1);
                    line.drain(..behind);
                }
            }
        }
        Self {
            code,
            enhanced,
            lines,
        }
    }
}

/// The enhanced status that a line begins with, if its class is the code's.
///
/// RFC 2034 section 4 demands that; what contradicts the code is text, and stays in it.
fn leading_status(line: &str, code: u16) -> Option<EnhancedStatus> {
    let word = line.split(' ').next()?;
    let status: EnhancedStatus = word.parse().ok()?;
    (u16::from(status.class) == code / 100).then_some(status)
}

impl fmt::Display for Reply {
    /// On one line for people: `550 5.7.1 no such user / try again`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.enhanced {
            write!(f, " {status}")?;
        }
        write!(f, " {}", self.text().replace('\n', " / "))
    }
}

/// Why what a server sent is not a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with a code from 200 to 599 and a space, a hyphen or its end.
    ///
    /// The line as the peer said it, so that passwords in it can be found before it is
    /// shortened; shown it is safe.
    #[error("not an SMTP reply: {}", printable(.0.as_bytes(), 200))]
    NotAReply(String),
    /// The lines of one reply have different codes.
    #[error("the lines of one reply have the codes {first} and {then}")]
    MixedCodes {
        /// Of the first line.
        first: u16,
        /// Of a later line.
        then: u16,
    },
    /// A line ended otherwise than the lines before.
    #[error("a line of the reply ended in a bare LF")]
    MixedLineEndings,
    /// A line, or the whole reply, is longer than anyone needs.
    #[error("the reply is too long")]
    TooLong,
}

/// Reads the replies of one server, fed with whatever arrives.
///
/// Lines end in CRLF. A server that ends the very first line of its greeting in a bare
/// LF is taken at its word and must go on so: the greeting holds nothing that a third
/// party could have chosen. From then on the other ending is an error, because a bare
/// LF inside a later reply (which may quote an address) would otherwise forge a reply
/// for another recipient.
#[derive(Debug, Default)]
pub struct ReplyParser {
    line: Vec<u8>,
    code: Option<u16>,
    lines: Vec<String>,
    total: usize,
    bare_lf: Option<bool>,
}

impl ReplyParser {
    /// A parser for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no part of a reply waits for its rest.
    pub fn is_between(&self) -> bool {
        self.line.is_empty() && self.lines.is_empty()
    }

    /// What has been read of a reply that is not complete, or turned out to be none: as
    /// the peer said it.
    pub fn so_far(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let code = self.code.unwrap_or_default();
            text.push_str(&format!("{code}-{line}\n"));
        }
        text + &String::from_utf8_lossy(&self.line)
    }

    /// Takes octets up to the end of one reply; says how many, and the reply if complete.
    ///
    /// After an error the connection is of no use: nobody knows where the next reply begins.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Option<Result<Reply, ReplyError>>) {
        let mut consumed = 0;
        while consumed < input.len() {
            let rest = &input[consumed..];
            let (piece, ended) = match rest.iter().position(|it| *it == b'\n') {
                Some(place) => (&rest[..=place], true),
                None => (rest, false),
            };
            consumed += piece.len();
            self.total += piece.len();
            if self.line.len() + piece.len() > LINE_MAXIMUM || self.total > REPLY_MAXIMUM {
                return (consumed, Some(Err(ReplyError::TooLong)));
            }
            self.line.extend_from_slice(piece);
            if !ended {
                break;
            }
            match self.take_line() {
                Ok(None) => {}
                Ok(Some(reply)) => return (consumed, Some(Ok(reply))),
                Err(error) => return (consumed, Some(Err(error))),
            }
        }
        (consumed, None)
    }

    /// The line is complete: one more of this reply, or its last.
    fn take_line(&mut self) -> Result<Option<Reply>, ReplyError> {
        self.line.pop();
        let bare = self.line.last() != Some(&b'\r');
        if !bare {
            self.line.pop();
        }
        if *self.bare_lf.get_or_insert(bare) != bare {
            return Err(ReplyError::MixedLineEndings);
        }
        let (code, more) = code_of(&self.line).ok_or_else(|| {
            ReplyError::NotAReply(String::from_utf8_lossy(&self.line).into_owned())
        })?;
        match self.code {
            Some(first) if first != code => {
                return Err(ReplyError::MixedCodes { first, then: code });
            }
            _ => self.code = Some(code),
        }
        let text = self.line.get(4..).unwrap_or_default();
        self.lines.push(String::from_utf8_lossy(text).into_owned());
        self.line.clear();
        if more && self.lines.len() >= LINES_MAXIMUM {
            return Err(ReplyError::TooLong);
        }
        if more {
            return Ok(None);
        }
        self.code = None;
        self.total = 0;
        Ok(Some(Reply::received(code, std::mem::take(&mut self.lines))))
    }
}

/// The code of a line, and whether more lines follow.
fn code_of(line: &[u8]) -> Option<(u16, bool)> {
    let digits = line.get(..3)?;
    if !(b'2'..=b'5').contains(&digits[0]) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match line.get(3) {
        // A code alone is a whole line (RFC 5321 section 4.2.1).
        None | Some(b' ') => Some((code, false)),
        Some(b'-') => Some((code, true)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(input: &[u8]) -> Option<Result<Reply, ReplyError>> {
        ReplyParser::new().feed(input).1
    }

    #[test]
    fn ordinary_replies_are_read() {
        let reply = parse(b"250-2.1.0 one\r\n250 2.1.0 two\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(reply.code, 250);
        assert_eq!(reply.enhanced, Some(EnhancedStatus::new(2, 1, 0)));
        assert_eq!(reply.lines, ["one", "two"]);
        assert_eq!(parse(b"354\r\n").unwrap().unwrap(), Reply::new(354, ""));
        assert_eq!(
            parse(b"550 5.7.1\r\n").unwrap().unwrap(),
            Reply::enhanced(550, 7, 1, "")
        );
        let reply = parse(b"550 4.7.1 odd\r\n").unwrap().unwrap();
        assert_eq!((reply.enhanced, reply.text().as_str()), (None, "4.7.1 odd"));
        let reply = parse(b"553 sorry (#5.7.1)\r\n").unwrap().unwrap();
        assert_eq!(reply.to_string(), "553 sorry (#5.7.1)");
    }

    #[test]
    fn what_is_no_reply_is_refused_at_once() {
        for input in [
            &b"hello\r\n"[..],
            b"\r\n",
            b"25\r\n",
            b"199 x\r\n",
            b"600 x\r\n",
            b"250x\r\n",
            b"250\tx\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"+OK\r\n",
            b" 250 x\r\n",
            b"2\xb25 x\r\n",
        ] {
            assert!(
                matches!(parse(input), Some(Err(ReplyError::NotAReply(_)))),
                "{input:?}"
            );
        }
        assert_eq!(
            parse(b"250-a\r\n550 b\r\n"),
            Some(Err(ReplyError::MixedCodes {
                first: 250,
                then: 550
            }))
        );
    }

    #[test]
    fn a_bare_lf_after_a_proper_greeting_forges_nothing() {
        let mut parser = ReplyParser::new();
        assert!(parser.feed(b"220 hello\r\n").1.unwrap().is_ok());
        assert_eq!(
            parser.feed(b"250 <a\n250 b> ok\r\n").1,
            Some(Err(ReplyError::MixedLineEndings))
        );
    }

    #[test]
    fn a_server_that_only_knows_lf_is_understood() {
        let mut parser = ReplyParser::new();
        assert!(parser.feed(b"220 hello\n").1.unwrap().is_ok());
        assert_eq!(parser.feed(b"250 ok\n").1, Some(Ok(Reply::new(250, "ok"))));
    }

    #[test]
    fn replies_without_end_are_cut_off() {
        assert_eq!(
            parse(&[b'2'; LINE_MAXIMUM + 1]),
            Some(Err(ReplyError::TooLong))
        );
        let endless = b"250-x\r\n".repeat(LINES_MAXIMUM);
        assert_eq!(parse(&endless), Some(Err(ReplyError::TooLong)));
        let wide = [&b"250-"[..], &[b'x'; 4_000], b"\r\n"].concat().repeat(9);
        assert_eq!(parse(&wide), Some(Err(ReplyError::TooLong)));
    }

    #[test]
    fn a_reply_that_quotes_a_client_stays_one_reply() {
        let reply = Reply::enhanced(550, 1, 1, "no <a\r\n250 ok>\0");
        assert_eq!(reply.to_wire(), b"550 5.1.1 no <a??250 ok>?\r\n");
        let long = Reply::new(550, "e".repeat(600)).to_wire();
        assert!(long.len() == LINE_SENT_MAXIMUM && long.ends_with(b"e\r\n"));
    }

    #[test]
    fn what_is_sent_is_ascii() {
        let reply = Reply::enhanced(550, 1, 1, "no <jörg@…>");
        assert_eq!(reply.to_wire(), b"550 5.1.1 no <j\\u{f6}rg@...>\r\n");
        let long = Reply::new(550, "é".repeat(600)).to_wire();
        assert!(long.len() <= LINE_SENT_MAXIMUM && long.is_ascii());
    }

    #[test]
    fn what_a_server_said_is_shown_shortened_and_escaped() {
        let reply = Reply::new(550, "\x1b[2J\u{202e}x");
        assert_eq!(reply.text(), "\\u{1b}[2J\\u{202e}x");
        let long = Reply {
            code: 550,
            enhanced: None,
            lines: vec!["x".repeat(4_000); 8],
        };
        assert!(long.text().chars().count() <= TEXT_MAXIMUM + 8);
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_at_every_split(
            code in 200u16..600,
            status in proptest::option::of((0u16..1000, 0u16..1000)),
            lines in proptest::collection::vec("[a-z][ -~]{0,40}", 1..5),
            splits in proptest::collection::vec(1usize..8, 1..100),
        ) {
            let class = code / 100;
            let enhanced = status
                .filter(|_| class != 3)
                .map(|(subject, detail)| EnhancedStatus::new(class as u8, subject, detail));
            let reply = Reply { code, enhanced, lines };
            let wire = reply.to_wire();
            let mut parser = ReplyParser::new();
            let mut place = 0;
            let mut splits = splits.into_iter().cycle();
            let read = loop {
                let end = (place + splits.next().unwrap()).min(wire.len());
                let (consumed, read) = parser.feed(&wire[place..end]);
                place += consumed;
                if let Some(read) = read { break read; }
                prop_assert!(place < wire.len());
            };
            prop_assert_eq!(read, Ok(reply));
            prop_assert_eq!(place, wire.len());
            prop_assert!(parser.is_between());
        }

        #[test]
        fn reading_never_panics_and_never_hoards(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut parser = ReplyParser::new();
            let mut rest = &input[..];
            while !rest.is_empty() {
                let (consumed, read) = parser.feed(rest);
                prop_assert!(consumed > 0);
                rest = &rest[consumed..];
                if let Some(Err(_)) = read { break; }
            }
        }
    }
}
