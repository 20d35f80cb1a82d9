//! Lines and header fields of a report, in ASCII unless more is allowed.

use crate::mail::text::steers;
use crate::mail::xtext::{encode_utf8_address, utf8_address};

/// RFC 5322 section 2.1.1.
pub const LINE_MAXIMUM: usize = 998;

/// What was written so far.
#[derive(Default)]
pub struct Out {
    pub octets: Vec<u8>,
}

impl Out {
    /// One line as it is.
    pub fn line(&mut self, line: &str) {
        self.octets.extend_from_slice(line.as_bytes());
        self.octets.extend_from_slice(b"\r\n");
    }

    /// One field whose blanks belong to its value, as in an address or an ENVID: on one
    /// line, unless that would be longer than any line may be.
    pub fn verbatim(&mut self, name: &str, value: &str, global: bool) {
        let value = fit_for_field(value, global);
        if name.len() + 2 + value.len() <= LINE_MAXIMUM {
            return self.line(&format!("{name}: {value}"));
        }
        self.line(&format!("{name}:"));
        for piece in pieces(&value, 900) {
            self.line(&format!(" {piece}"));
        }
    }

    /// One field, folded before 78 columns where it has spaces (RFC 5322 section 2.2.3).
    pub fn field(&mut self, name: &str, value: &str, global: bool) {
        let value = fit_for_field(value, global);
        let bare = format!("{name}:");
        let mut line = bare.clone();
        for word in value.split_whitespace() {
            for piece in pieces(word, 900) {
                let fits = line.len() + 1 + piece.len() <= 78;
                if !fits && !line.is_empty() && line != bare {
                    self.line(&line);
                    line.clear();
                }
                line.push(' ');
                line.push_str(piece);
            }
        }
        self.line(&line);
    }

    /// One line in quoted-printable (RFC 2045 section 6.7), softly broken.
    pub fn quoted_printable(&mut self, line: &[u8]) {
        let mut column = 0;
        for (place, octet) in line.iter().enumerate() {
            let last = place + 1 == line.len();
            let plain = match octet {
                b'=' => false,
                b' ' | b'\t' => !last,
                33..=126 => true,
                _ => false,
            };
            let width = if plain { 1 } else { 3 };
            if column + width > 75 {
                self.octets.extend_from_slice(b"=\r\n");
                column = 0;
            }
            if plain {
                self.octets.push(*octet);
            } else {
                self.octets
                    .extend_from_slice(format!("={octet:02X}").as_bytes());
            }
            column += width;
        }
        self.octets.extend_from_slice(b"\r\n");
    }
}

/// Cuts a word without spaces into pieces of at most `limit` octets.
fn pieces(word: &str, limit: usize) -> Vec<&str> {
    let mut rest = word;
    let mut all = Vec::new();
    while rest.len() > limit {
        let mut cut = limit;
        while !rest.is_char_boundary(cut) {
            cut -= 1;
        }
        let (piece, behind) = rest.split_at(cut);
        all.push(piece);
        rest = behind;
    }
    all.push(rest);
    all
}

/// Nothing that acts on a terminal, and nothing beyond ASCII unless it is allowed.
fn fit_for_field(value: &str, global: bool) -> String {
    let mut fit = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            it if steers(it) => fit.push(' '),
            it if global || it.is_ascii() => fit.push(it),
            it => fit.extend(it.escape_unicode()),
        }
    }
    fit
}

/// `type; address`, the address as its type is written: of type `utf-8` in the escaped
/// form of RFC 6533 section 3, in which letters beyond ASCII stand where the field may
/// hold them.
pub fn address_field(kind: &str, address: &str, global: bool) -> String {
    if address.is_ascii() && !kind.eq_ignore_ascii_case("utf-8") {
        return format!("{kind}; {address}");
    }
    match global {
        true => format!("utf-8; {}", utf8_address(address)),
        false => format!("utf-8; {}", encode_utf8_address(address)),
    }
}
