//! The header section of a message that may not have been written with care.

use std::io::BufRead;

use jiff::Timestamp;

use super::address_list::places;
use super::input::Message;
use super::{DATA_ERROR, IO_ERROR, Refusal};
use crate::mail::header::trace;
use crate::mail::{Domain, Mailbox};

/// The daemon refuses a longer one.
const MAXIMUM: usize = 256 * 1024;

/// The fields in which addresses without a domain get this machine's.
const ADDRESS_FIELDS: [&str; 12] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "resent-from",
    "resent-sender",
    "resent-reply-to",
    "resent-to",
    "resent-cc",
    "resent-bcc",
];

/// The header section, field by field, and what was read of the body with it.
#[derive(Debug, Default)]
pub struct Header {
    fields: Vec<Field>,
    rest: Vec<u8>,
}

/// One field as it was written, folded lines and line ends included.
#[derive(Debug)]
struct Field {
    /// In lower case.
    name: String,
    text: Vec<u8>,
}

impl Field {
    fn body(&self) -> &[u8] {
        let colon = self.text.iter().position(|it| *it == b':');
        &self.text[colon.map_or(0, |it| it + 1)..]
    }
}

impl Header {
    /// Reads the header section and no more of the body than comes with it.
    ///
    /// It ends at an empty line, or at the first line that is no field: then that line is
    /// the beginning of the body, as with `echo hello | sendmail jan@uwdomein.nl`.
    pub fn read<R: BufRead>(message: &mut Message<R>) -> Result<Self, Refusal> {
        let mut read = Vec::new();
        let mut header = Self::default();
        let mut place = 0;
        loop {
            let Some(end) = read[place..].iter().position(|it| *it == b'\n') else {
                if read.len() > MAXIMUM {
                    return Err(Refusal::new(
                        DATA_ERROR,
                        "the header is longer than 256 KiB",
                    ));
                }
                let more = message.read(&mut read).map_err(|error| {
                    Refusal::new(IO_ERROR, format!("cannot read the message: {error}"))
                })?;
                if more {
                    continue;
                }
                break;
            };
            let line = &read[place..place + end + 1];
            match header.take(line) {
                Line::Field => place += line.len(),
                Line::Blank => {
                    place += line.len();
                    break;
                }
                Line::Body => break,
            }
        }
        header.rest = read.split_off(place);
        Ok(header)
    }

    fn take(&mut self, line: &[u8]) -> Line {
        if line == b"\r\n" {
            return Line::Blank;
        }
        if line[0] == b' ' || line[0] == b'\t' {
            return match self.fields.last_mut() {
                Some(field) => {
                    field.text.extend_from_slice(line);
                    Line::Field
                }
                None => Line::Body,
            };
        }
        // A line of the mailbox format, which some programs put on top; it is no field.
        if self.fields.is_empty() && line.starts_with(b"From ") {
            return Line::Field;
        }
        let name = line
            .iter()
            .position(|it| *it == b':')
            .map(|colon| line[..colon].trim_ascii_end());
        match name {
            Some(name) if !name.is_empty() && name.iter().all(u8::is_ascii_graphic) => {
                self.fields.push(Field {
                    name: String::from_utf8_lossy(name).to_lowercase(),
                    text: line.to_vec(),
                });
                Line::Field
            }
            _ => Line::Body,
        }
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|it| it.name == name)
    }

    /// The recipients that the header names; those of the latest resending, if it was resent.
    pub fn recipients(&self) -> Vec<String> {
        let resent = ["resent-to", "resent-cc", "resent-bcc"];
        let names = match resent.iter().any(|it| self.has(it)) {
            true => resent,
            false => ["to", "cc", "bcc"],
        };
        self.fields
            .iter()
            .filter(|it| names.contains(&it.name.as_str()))
            .flat_map(|it| {
                let body = it.body();
                places(body)
                    .into_iter()
                    .map(|place| String::from_utf8_lossy(&body[place]).into_owned())
            })
            .collect()
    }

    /// Takes the blind copies' recipients out.
    pub fn remove_bcc(&mut self) {
        self.fields
            .retain(|it| it.name != "bcc" && it.name != "resent-bcc");
    }

    /// Gives addresses without a domain this machine's: `root` becomes `root@app01.example.nl`.
    pub fn qualify(&mut self, hostname: &Domain) {
        for field in &mut self.fields {
            if !ADDRESS_FIELDS.contains(&field.name.as_str()) {
                continue;
            }
            let start = field.text.len() - field.body().len();
            let mut text = field.text.clone();
            // From the last, so that the places before stay where they are.
            for place in places(field.body()).into_iter().rev() {
                let (from, to) = (start + place.start, start + place.end);
                let address = &field.text[from..to];
                let is_word = !address
                    .iter()
                    .any(|it| it.is_ascii_whitespace() || *it == b'@');
                if is_word {
                    text.splice(to..to, format!("@{hostname}").into_bytes());
                }
            }
            field.text = text;
        }
    }

    /// Adds the From field that is missing.
    pub fn add_from(&mut self, address: &Mailbox, name: &str) {
        let shown = match name.trim() {
            "" => address.to_string(),
            name => format!("{} <{address}>", phrase(name)),
        };
        self.add("From", &shown);
    }

    /// Adds the Date field that is missing.
    pub fn add_date(&mut self, now: Timestamp) {
        self.add("Date", &trace::date(now));
    }

    fn add(&mut self, name: &str, body: &str) {
        self.fields.push(Field {
            name: name.to_lowercase(),
            text: format!("{name}: {body}\r\n").into_bytes(),
        });
    }

    /// The header, the empty line behind it, and what was read of the body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for field in &self.fields {
            text.extend_from_slice(&field.text);
        }
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(&self.rest);
        text
    }
}

enum Line {
    Field,
    Blank,
    Body,
}

/// A display name: as it is where that is allowed, in quotes, or encoded (RFC 2047).
fn phrase(name: &str) -> String {
    let name: String = name.chars().filter(|it| !it.is_control()).collect();
    let plain = |it: char| it.is_ascii_alphanumeric() || " !#$%&'*+-/=?^_`{|}~".contains(it);
    if name.chars().all(plain) {
        return name;
    }
    if name.is_ascii() {
        return format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    }
    use base64::Engine;
    let words: Vec<String> = pieces(&name, 45)
        .map(|it| {
            format!(
                "=?utf-8?B?{}?=",
                base64::engine::general_purpose::STANDARD.encode(it)
            )
        })
        .collect();
    words.join(" ")
}

/// The text in pieces of at most `size` octets, no letter cut in two.
fn pieces(mut text: &str, size: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let mut end = size.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, rest) = text.split_at(end);
        text = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Header {
        Header::read(&mut Message::new(text.as_bytes(), true)).unwrap()
    }

    fn shown(header: &Header) -> String {
        String::from_utf8(header.to_bytes()).unwrap()
    }

    #[test]
    fn a_message_passes_as_it_is() {
        let text = "Subject: a\r\n b\r\nX-Y:z\r\n\r\nbody\r\n.\r\n";
        assert_eq!(shown(&header(text)), text);
    }

    #[test]
    fn text_without_a_header_gets_an_empty_one() {
        assert_eq!(shown(&header("hello\nworld\n")), "\r\nhello\r\nworld\r\n");
        assert_eq!(shown(&header("")), "\r\n");
        assert_eq!(
            shown(&header("Subject: a\nno field\n")),
            "Subject: a\r\n\r\nno field\r\n"
        );
        assert_eq!(shown(&header(" indented\n")), "\r\n indented\r\n");
        assert_eq!(
            shown(&header("From jan Mon Jan 1\nTo: a@b.nl\n\nx\n")),
            "To: a@b.nl\r\n\r\nx\r\n"
        );
    }

    #[test]
    fn recipients_are_those_of_to_cc_and_bcc_and_bcc_goes() {
        let mut header = header(
            "To: Jan <jan@x.nl>,\n piet\nCC: c@x.nl\nBcc: d@x.nl\nbcc : e@x.nl\nSubject: s\n\n",
        );
        assert_eq!(
            header.recipients(),
            ["jan@x.nl", "piet", "c@x.nl", "d@x.nl", "e@x.nl"]
        );
        header.remove_bcc();
        assert_eq!(
            shown(&header),
            "To: Jan <jan@x.nl>,\r\n piet\r\nCC: c@x.nl\r\nSubject: s\r\n\r\n"
        );
    }

    #[test]
    fn a_resent_message_goes_to_whom_it_is_resent() {
        let header = header("Resent-To: new@x.nl\nTo: old@x.nl\nBcc: older@x.nl\n\n");
        assert_eq!(header.recipients(), ["new@x.nl"]);
    }

    #[test]
    fn addresses_without_a_domain_get_this_machine_s() {
        let mut header =
            header("From: root (Cron Daemon)\nTo: root, \"A B\" <jan>, x@y.nl\nSubject: root\n\n");
        header.qualify(&Domain::parse("app01.example.nl").unwrap());
        assert_eq!(
            shown(&header),
            "From: root@app01.example.nl (Cron Daemon)\r\nTo: root@app01.example.nl, \
             \"A B\" <jan@app01.example.nl>, x@y.nl\r\nSubject: root\r\n\r\n"
        );
    }

    #[test]
    fn a_missing_from_names_the_caller() {
        let jan = Mailbox::parse("jan@app01.example.nl").unwrap();
        for (name, from) in [
            ("Jan Jansen", "Jan Jansen <jan@app01.example.nl>"),
            ("Jansen, J.", "\"Jansen, J.\" <jan@app01.example.nl>"),
            ("", "jan@app01.example.nl"),
            ("Zoë", "=?utf-8?B?Wm/Dqw==?= <jan@app01.example.nl>"),
            (
                "a\r\nBcc: x@y.nl",
                "\"aBcc: x@y.nl\" <jan@app01.example.nl>",
            ),
        ] {
            let mut header = header("Subject: s\n\n");
            header.add_from(&jan, name);
            assert_eq!(
                shown(&header),
                format!("Subject: s\r\nFrom: {from}\r\n\r\n")
            );
        }
    }

    #[test]
    fn an_endless_header_is_refused() {
        let endless = "X: y\n".repeat(60_000) + &"x".repeat(300_000);
        let refused = Header::read(&mut Message::new(endless.as_bytes(), true));
        assert_eq!(refused.unwrap_err().code, DATA_ERROR);
    }
}
