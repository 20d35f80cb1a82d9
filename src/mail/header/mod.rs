//! Header fields of a message: finding them, reading From, adding what is missing.
//!
//! [`Header::scan`] reads the header section once, in linear time, and keeps what
//! Penstock decides by. Who sends it is read strictly, by [`originator`]: an address
//! that two programs could read as two people is nobody's. Everything else is read
//! leniently, because nothing in the message is ever changed.

pub mod mailbox_list;
pub mod originator;
pub mod trace;

use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;

use super::Mailbox;
use super::text::printable;

pub use originator::{FromError, Originators};

/// The longest header section that is read, in octets.
///
/// Two and a half times what Postfix reads (`header_size_limit`); mail of real
/// applications stays below a tenth.
pub const HEADER_MAXIMUM: usize = 256 * 1024;

/// Of a field that is only shown or compared, this many octets are read.
const SHOWN_OCTETS: usize = 1024;
/// And this many characters are kept.
const SHOWN_CHARACTERS: usize = 200;

/// What the header section of one message says, as far as Penstock asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Octets of the header section, its empty line included; the body follows.
    pub length: usize,
    /// The first line is no header field: the whole message is a body, and whoever
    /// puts fields before it must put an empty line between.
    pub is_absent: bool,
    /// How many Received fields there are: how many hosts it has passed.
    pub received: usize,
    /// There is a Date field.
    pub has_date: bool,
    /// There is a Message-ID field.
    pub has_message_id: bool,
    /// The Message-ID without its angle brackets, printable; empty when there is none.
    pub message_id: String,
    /// List-Id (RFC 2919), printable.
    pub list_id: Option<String>,
    /// Feedback-ID, printable.
    pub feedback_id: Option<String>,
    /// X-Mailing-ID, printable.
    pub x_mailing_id: Option<String>,
    /// The subject, decoded (RFC 2047), shortened and printable.
    pub subject: Option<String>,
    originators: Result<Originators, FromError>,
}

/// Why a header section cannot be read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// No empty line within [`HEADER_MAXIMUM`] octets.
    #[error("the header section is longer than 256 KiB")]
    TooLong,
    /// Programs written in C stop reading at a NUL, others do not.
    #[error("there is a NUL octet in the header section")]
    Nul,
}

impl Header {
    /// Reads the header section at the beginning of `message`, which may stop anywhere
    /// behind it; a message that is all header is complete as it is.
    ///
    /// Lines end with CRLF, or with LF in files. A line that is no header field does not
    /// end the section for every program that will read it, so a From behind such a line
    /// is an error of [`originators`](Self::originators). If the very first line is none,
    /// nothing behind it is read.
    pub fn scan(message: &[u8]) -> Result<Self, HeaderError> {
        let mut reading = Reading::default();
        let mut place = 0;
        let ended = loop {
            if place > HEADER_MAXIMUM {
                break false;
            }
            let Some(line) = first_line(&message[place..]) else {
                break true;
            };
            let start = place;
            place += line.len();
            let text = without_ending(line);
            if text.is_empty() {
                reading.close_field(message, start);
                break true;
            }
            let continues = matches!(text[0], b' ' | b'\t');
            if continues && reading.open.is_some() {
                continue;
            }
            reading.close_field(message, start);
            match field_name(text).filter(|_| !continues) {
                Some(name) => reading.open = Some((start, start + name.len())),
                None => reading.not_a_field(start, text),
            }
            // What is no header is not read as one: an empty line will stand before it.
            // The first line of an mbox file is the exception: who sent that meant what
            // follows as a header.
            if reading.broken == Some(0) && !message.starts_with(b"From ") {
                break true;
            }
        };
        // Behind a line that is no field, text without an empty line is just a long body.
        if !ended && reading.broken.is_none() {
            return Err(HeaderError::TooLong);
        }
        let place = place.min(message.len());
        if reading.open.is_some() {
            reading.close_field(message, place);
        }
        let length = match reading.broken {
            Some(broken) => broken,
            None => place,
        };
        if message[..length].contains(&0) {
            return Err(HeaderError::Nul);
        }
        let is_absent = reading.broken == Some(0);
        let facts = match is_absent {
            true => Reading::default().facts,
            false => reading.facts,
        };
        Ok(Self {
            length,
            is_absent,
            originators: reading.originators.finish(),
            ..facts
        })
    }

    /// Who the message says sent it; an error where programs might read different people.
    pub fn originators(&self) -> Result<&Originators, &FromError> {
        self.originators.as_ref()
    }

    /// The address that decides the route: From, of several mailboxes the Sender, else
    /// the first; none without From: then it is the reverse-path (PRODUCT section 4).
    pub fn identity(&self) -> Result<Option<&Mailbox>, &FromError> {
        self.originators().map(Originators::identity)
    }
}

/// Finds the end of the header section in content that comes in pieces.
///
/// Knows nothing but the empty line, so that it can run over every octet as it arrives.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeaderEnd {
    in_line: bool,
}

impl HeaderEnd {
    /// Looks at the next piece: the place just behind the empty line, once it is there.
    pub fn find(&mut self, piece: &[u8]) -> Option<usize> {
        for (place, octet) in piece.iter().enumerate() {
            match octet {
                b'\n' if !self.in_line => return Some(place + 1),
                b'\n' => self.in_line = false,
                b'\r' => {}
                _ => self.in_line = true,
            }
        }
        None
    }
}

/// What was gathered so far while lines are read.
struct Reading {
    /// The field whose lines are being read: where it starts and where its name ends.
    open: Option<(usize, usize)>,
    /// Where the first line stands that is no field.
    broken: Option<usize>,
    originators: originator::Gathering,
    facts: Header,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            open: None,
            broken: None,
            originators: originator::Gathering::default(),
            facts: Header {
                length: 0,
                is_absent: false,
                received: 0,
                has_date: false,
                has_message_id: false,
                message_id: String::new(),
                list_id: None,
                feedback_id: None,
                x_mailing_id: None,
                subject: None,
                originators: Ok(Originators::default()),
            },
        }
    }
}

impl Reading {
    fn not_a_field(&mut self, start: usize, text: &[u8]) {
        self.broken.get_or_insert(start);
        // `\u{feff}From: x` and ` From: x` are From fields to some programs.
        let before_colon = text.split(|it| *it == b':').next().unwrap_or(text);
        let letters: Vec<u8> = before_colon
            .iter()
            .take(64)
            .filter(|it| it.is_ascii_alphabetic())
            .map(u8::to_ascii_lowercase)
            .collect();
        if before_colon.len() < text.len() && (letters == b"from" || letters == b"sender") {
            self.originators.hidden();
        }
    }

    fn close_field(&mut self, message: &[u8], end: usize) {
        let Some((start, name_end)) = self.open.take() else {
            return;
        };
        let name = &message[start..name_end];
        let field = &message[name_end..end];
        let colon = field.iter().position(|it| *it == b':').unwrap_or(0);
        let body = &field[colon + 1..];
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let facts = &mut self.facts;
        if is("From") || is("Sender") {
            match self.broken {
                Some(_) => self.originators.hidden(),
                None if is("From") => self.originators.read_from(body),
                None => self.originators.read_sender(body),
            }
        } else if is("Received") {
            facts.received += 1;
        } else if is("Date") {
            facts.has_date = true;
        } else if is("Message-ID") {
            if !facts.has_message_id {
                facts.message_id = message_id(body);
            }
            facts.has_message_id = true;
        } else if is("List-Id") {
            facts.list_id = facts.list_id.take().or_else(|| shown(body));
        } else if is("Feedback-ID") {
            facts.feedback_id = facts.feedback_id.take().or_else(|| shown(body));
        } else if is("X-Mailing-ID") {
            facts.x_mailing_id = facts.x_mailing_id.take().or_else(|| shown(body));
        } else if is("Subject") {
            facts.subject = facts.subject.take().or_else(|| shown(body));
        }
    }
}

/// The first line with its ending; none at the end.
fn first_line(text: &[u8]) -> Option<&[u8]> {
    match text.iter().position(|it| *it == b'\n') {
        Some(place) => Some(&text[..=place]),
        None if text.is_empty() => None,
        None => Some(text),
    }
}

fn without_ending(line: &[u8]) -> &[u8] {
    match line {
        [text @ .., b'\r', b'\n'] | [text @ .., b'\n'] => text,
        text => text,
    }
}

/// The name at the beginning of a field (RFC 5322 section 2.2), blanks before the colon
/// allowed (section 4.5).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let end = line
        .iter()
        .position(|it| !matches!(it, b'!'..=b'~') || *it == b':')?;
    let blanks = line[end..]
        .iter()
        .take_while(|it| matches!(it, b' ' | b'\t'))
        .count();
    (end > 0 && line.get(end + blanks) == Some(&b':')).then(|| &line[..end])
}

/// An unstructured field for people: decoded, on one line, shortened; none if empty.
fn shown(body: &[u8]) -> Option<String> {
    // The stream reads a field up to a line end that no blank follows, so it gets one.
    let mut field = body[..body.len().min(SHOWN_OCTETS)].to_vec();
    while field.last().is_some_and(u8::is_ascii_whitespace) {
        field.pop();
    }
    field.push(b'\n');
    let decoded = match MessageStream::new(&field).parse_unstructured() {
        HeaderValue::Text(text) => text.into_owned(),
        _ => return None,
    };
    let text = printable(decoded.trim().as_bytes(), SHOWN_CHARACTERS);
    (!text.is_empty()).then_some(text)
}

fn message_id(body: &[u8]) -> String {
    let text = body.trim_ascii();
    let text = match text.iter().position(|it| *it == b'<') {
        Some(open) => &text[open + 1..],
        None => text,
    };
    let end = text
        .iter()
        .position(|it| *it == b'>' || it.is_ascii_whitespace())
        .unwrap_or(text.len());
    printable(&text[..end], SHOWN_CHARACTERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str) -> Header {
        Header::scan(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_penstock_asks_is_found_and_the_body_is_not_read() {
        let text = "Received: from a\r\n by b; now\r\nRECEIVED: x\r\nFrom: Jan <jan@example.nl>\r\n\
            Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?b?IGFhbg==?= allen\r\nDate: today\r\n\
            Message-Id:\r\n <abc@example.nl>\r\nlist-id: News <news.example.nl>\r\n\
            Feedback-ID: 1:2\r\nX-Mailing-ID: 77\r\n\r\nReceived: no\r\nFrom: eve@example.net\r\n";
        let header = scan(text);
        assert_eq!(header.length, text.find("Received: no").unwrap());
        assert_eq!(header.received, 2);
        assert!(header.has_date && header.has_message_id && !header.is_absent);
        assert_eq!(header.message_id, "abc@example.nl");
        assert_eq!(header.subject.as_deref(), Some("Grüße aan allen"));
        assert_eq!(header.list_id.as_deref(), Some("News <news.example.nl>"));
        assert_eq!(header.feedback_id.as_deref(), Some("1:2"));
        assert_eq!(header.x_mailing_id.as_deref(), Some("77"));
        assert_eq!(
            header.identity().unwrap().unwrap().to_string(),
            "jan@example.nl"
        );
    }

    #[test]
    fn files_with_lf_only_read_the_same() {
        let header = scan("From: jan@example.nl\nSubject: hi\n\nFrom: eve@example.net\n");
        assert_eq!(header.identity().unwrap().unwrap().local(), "jan");
        assert_eq!(header.subject.as_deref(), Some("hi"));
    }

    #[test]
    fn a_message_without_header_is_all_body() {
        for text in ["Hello\r\nyou\r\n\r\nmore", " indented\r\n", "¡Hola: x\r\n"] {
            let header = scan(text);
            assert!(header.is_absent, "{text}");
            assert_eq!(header.length, 0, "{text}");
            assert_eq!(header.identity(), Ok(None), "{text}");
        }
        let header = scan("\r\nFrom: eve@example.net\r\n");
        assert!(!header.is_absent);
        assert_eq!((header.length, header.identity()), (2, Ok(None)));
        assert_eq!(scan("").length, 0);
        assert!(!scan("").is_absent);
    }

    #[test]
    fn nothing_in_a_text_without_header_is_taken_for_a_field() {
        let header = scan(
            "Job report\r\nDate: 2026-11-22\r\nMessage-ID: 5\r\nSubject: x\r\nList-Id: y\r\n\
             Received: z\r\nFrom: eve@example.net\r\nSender: eve@example.net\r\nall well\r\n",
        );
        assert_eq!(
            header,
            Header {
                is_absent: true,
                ..Reading::default().facts
            }
        );
        // But a header behind the first line of an mbox file was meant as one.
        let mbox = "From eve@example.net Sun Nov 22 10:00:00 2026\r\n";
        let header = scan(&format!("{mbox}From: jan@example.nl\r\nDate: x\r\n\r\n"));
        assert_eq!(header.identity(), Err(&FromError::Hidden));
        let header = scan("From today on\r\nDate: x\r\n\r\n");
        assert_eq!(header.identity(), Ok(None));
        assert!(header.is_absent && !header.has_date);
    }

    #[test]
    fn a_from_that_only_some_programs_see_is_refused() {
        for text in [
            "Subject: x\r\njunk\r\nFrom: jan@example.nl\r\n\r\n",
            "From: jan@example.nl\r\njunk\r\nFrom: eve@example.net\r\n\r\n",
            "From: jan@example.nl\r\njunk\r\nSender: eve@example.net\r\n\r\n",
            " From: eve@example.net\r\nFrom: jan@example.nl\r\n\r\n",
            "\u{feff}From: eve@example.net\r\nSubject: x\r\n\r\n",
            "From: jan@example.nl\r\nFrom\u{200b}: eve@example.net\r\n\r\n",
            "From: jan@example.nl\r\nFrom\u{b}: eve@example.net\r\n\r\n",
        ] {
            assert_eq!(scan(text).identity(), Err(&FromError::Hidden), "{text:?}");
        }
        assert!(
            scan("From: a@example.nl\r\njunk\r\nTo: x\r\n\r\n")
                .identity()
                .is_ok()
        );
        assert_eq!(
            Header::scan(b"From: a@example.nl\0\r\n\r\n"),
            Err(HeaderError::Nul)
        );
        assert_eq!(
            Header::scan(b"Fr\0om: a@example.nl\r\n\r\n").map(|it| it.identity().is_err()),
            Ok(true)
        );
    }

    #[test]
    fn blanks_before_the_colon_do_not_hide_a_field() {
        let header = scan("From : jan@example.nl\r\nFrom\t: eve@example.net\r\n\r\n");
        assert_eq!(
            header.identity(),
            Err(&FromError::Several { field: "From" })
        );
    }

    #[test]
    fn a_header_without_end_is_refused_and_a_long_body_is_not() {
        let mut endless = b"X-Filler: ".to_vec();
        endless.resize(HEADER_MAXIMUM + 10, b'x');
        endless.extend_from_slice(b"\r\nTo: x\r\n\r\n");
        assert_eq!(Header::scan(&endless), Err(HeaderError::TooLong));
        let body = "text\r\n".repeat(HEADER_MAXIMUM / 3);
        assert_eq!(scan(&body).identity(), Ok(None));
    }

    #[test]
    fn the_end_is_found_wherever_the_pieces_are_cut() {
        let text = b"A: b\r\n c\r\n\r\nbody\r\n\r\n";
        for cut in 0..12 {
            let mut end = HeaderEnd::default();
            assert_eq!(end.find(&text[..cut]), None, "{cut}");
            assert_eq!(end.find(&text[cut..]), Some(12 - cut), "{cut}");
        }
        assert_eq!(HeaderEnd::default().find(b"\r\nbody"), Some(2));
    }

    proptest! {
        #[test]
        fn scanning_never_panics(text in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"\r\n:\t =?From<>@,;()\"\\".to_vec())], 0..300)
        ) {
            let _ = Header::scan(&text);
            let mut field = b"From: ".to_vec();
            field.extend_from_slice(&text);
            let _ = Header::scan(&field);
            let mut field = b"Subject: =?utf-8?b?".to_vec();
            field.extend_from_slice(&text);
            let _ = Header::scan(&field);
        }

        #[test]
        fn a_subject_is_short_and_printable(text in "\\PC{0,2000}") {
            let header = Header::scan(format!("Subject: {text}\r\n\r\n").as_bytes()).unwrap();
            if let Some(subject) = header.subject {
                prop_assert!(subject.chars().count() <= SHOWN_CHARACTERS);
                prop_assert!(!subject.chars().any(char::is_control));
            }
        }
    }
}
