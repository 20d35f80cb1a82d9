//! Macros of SPF (RFC 7208 section 7): read once, expanded for one message.

use std::net::IpAddr;

/// A domain-spec: literal text and macros, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Macro(Macro),
}

/// `%{ir.}`: a letter and what is done to its value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Macro {
    /// In lower case.
    letter: char,
    /// Written in upper case: the value is escaped as in a URL.
    escaped: bool,
    /// How many labels from the right are kept.
    keep: Option<usize>,
    reversed: bool,
    delimiters: String,
}

/// What macros stand for.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// `%{i}`, `%{v}`
    pub address: IpAddr,
    /// `%{l}`
    pub local: &'a str,
    /// `%{o}`: the domain of the sender.
    pub sender_domain: &'a str,
    /// `%{d}`: the domain whose record is evaluated.
    pub domain: &'a str,
    /// `%{h}`
    pub helo: &'a str,
    /// `%{p}`: the validated name of the address, or `unknown`.
    pub validated: &'a str,
}

impl DomainSpec {
    /// Reads what stands behind `include:` or `redirect=`: it must end in a macro or in a
    /// dot and a top label (RFC 7208 section 7.1, domain-end).
    pub fn parse(text: &str) -> Option<Self> {
        let pieces = pieces(text)?;
        let ends_well = match pieces.last()? {
            Piece::Macro(_) => true,
            Piece::Literal(literal) => match text.ends_with(['_', '-', '%']) {
                // `%%`, `%_` and `%-` are macros, too; they were read as what they stand for.
                _ if ends_in_escape(text) => true,
                _ => {
                    let literal = literal.strip_suffix('.').unwrap_or(literal);
                    literal
                        .rsplit_once('.')
                        .is_some_and(|(_, label)| is_top_label(label))
                }
            },
        };
        ends_well.then_some(Self { pieces })
    }

    /// Whether the text is a macro-string: what a modifier may hold.
    pub fn is_macro_string(text: &str) -> bool {
        pieces(text).is_some()
    }

    /// The name, where no macro stands in it.
    pub fn literal(&self) -> Option<String> {
        let mut whole = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => whole.push_str(text),
                Piece::Macro(_) => return None,
            }
        }
        Some(name(&whole))
    }

    /// Whether the validated name of the address is asked for.
    pub fn needs_validated(&self) -> bool {
        self.pieces
            .iter()
            .any(|it| matches!(it, Piece::Macro(it) if it.letter == 'p'))
    }

    /// The name for one message, at most 253 octets: labels are taken off at the left
    /// (RFC 7208 section 7.3).
    pub fn expand(&self, values: &Values<'_>) -> String {
        let mut whole = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => whole.push_str(text),
                Piece::Macro(it) => whole.push_str(&it.expand(values)),
            }
        }
        let mut rest = whole.strip_suffix('.').unwrap_or(&whole);
        while rest.len() > 253 {
            match rest.split_once('.') {
                Some((_, shorter)) => rest = shorter,
                None => break,
            }
        }
        name(rest)
    }
}

/// As names are compared: lower case, no dot at the end.
fn name(text: &str) -> String {
    text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()
}

/// `%%`, `%_` or `%-` at the end, the first percent sign not itself escaped.
fn ends_in_escape(text: &str) -> bool {
    let octets = text.as_bytes();
    let mut at = 0;
    let mut escape = false;
    while at < octets.len() {
        escape = false;
        at += match (octets[at], octets.get(at + 1)) {
            (b'%', Some(b'{')) => text[at..].find('}').map_or(octets.len(), |it| it + 1),
            (b'%', _) => {
                escape = true;
                2
            }
            _ => 1,
        };
    }
    escape
}

fn pieces(text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if letter != '%' {
            // macro-literal: visible ASCII.
            if !letter.is_ascii_graphic() {
                return None;
            }
            literal.push(letter);
            rest = &rest[1..];
            continue;
        }
        match rest.as_bytes().get(1)? {
            b'%' => literal.push('%'),
            b'_' => literal.push(' '),
            b'-' => literal.push_str("%20"),
            b'{' => {
                let (inside, behind) = rest[2..].split_once('}')?;
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Macro(Macro::parse(inside)?));
                rest = behind;
                continue;
            }
            _ => return None,
        }
        rest = &rest[2..];
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Some(pieces)
}

fn is_top_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
        && !label.bytes().all(|it| it.is_ascii_digit())
}

impl Macro {
    fn parse(inside: &str) -> Option<Self> {
        let letter = inside.chars().next()?;
        let lower = letter.to_ascii_lowercase();
        // c, r and t are for explanations only.
        if !"slodiphv".contains(lower) {
            return None;
        }
        let rest = &inside[1..];
        let digits = rest.len()
            - rest
                .trim_start_matches(|it: char| it.is_ascii_digit())
                .len();
        let keep = match &rest[..digits] {
            "" => None,
            number => match number.parse::<usize>() {
                Ok(0) => return None,
                Ok(keep) => Some(keep),
                // More labels than any name has.
                Err(_) => Some(usize::MAX),
            },
        };
        let rest = &rest[digits..];
        let (reversed, delimiters) = match rest.strip_prefix(['r', 'R']) {
            Some(delimiters) => (true, delimiters),
            None => (false, rest),
        };
        delimiters
            .chars()
            .all(|it| ".-+,/_=".contains(it))
            .then(|| Self {
                letter: lower,
                escaped: letter.is_ascii_uppercase(),
                keep,
                reversed,
                delimiters: delimiters.to_owned(),
            })
    }

    fn expand(&self, values: &Values<'_>) -> String {
        let value = match self.letter {
            's' => format!("{}@{}", values.local, values.sender_domain),
            'l' => values.local.to_owned(),
            'o' => values.sender_domain.to_owned(),
            'd' => values.domain.to_owned(),
            'i' => dotted(values.address),
            'p' => values.validated.to_owned(),
            'v' => match values.address {
                IpAddr::V4(_) => "in-addr".to_owned(),
                IpAddr::V6(_) => "ip6".to_owned(),
            },
            _ => values.helo.to_owned(),
        };
        let split = |it: char| match self.delimiters.is_empty() {
            true => it == '.',
            false => self.delimiters.contains(it),
        };
        let mut labels: Vec<&str> = value.split(split).collect();
        if self.reversed {
            labels.reverse();
        }
        if let Some(keep) = self.keep {
            labels.drain(..labels.len().saturating_sub(keep));
        }
        let value = labels.join(".");
        if !self.escaped {
            return value;
        }
        value
            .bytes()
            .map(|octet| match octet {
                b'-' | b'.' | b'_' | b'~' => char::from(octet).to_string(),
                _ if octet.is_ascii_alphanumeric() => char::from(octet).to_string(),
                _ => format!("%{octet:02X}"),
            })
            .collect()
    }
}

/// `192.0.2.1`, or the nibbles of an IPv6 address with dots between.
fn dotted(address: IpAddr) -> String {
    match address {
        IpAddr::V4(four) => four.to_string(),
        IpAddr::V6(six) => {
            let nibbles = six
                .octets()
                .map(|it| format!("{:x}.{:x}", it >> 4, it & 15));
            nibbles.join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 7208 section 7.4.
    #[test]
    fn the_examples_of_the_standard_expand_as_it_says() {
        let values = |address: &str| Values {
            address: address.parse().unwrap(),
            local: "strong-bad",
            sender_domain: "email.example.com",
            domain: "email.example.com",
            helo: "mx.example.org",
            validated: "mx.example.org",
        };
        for (text, meant) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            (
                "%{ir}.%{v}._spf.%{d2}",
                "3.2.0.192.in-addr._spf.example.com",
            ),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            (
                "%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}",
                "3.2.0.192.in-addr.strong.lp._spf.example.com",
            ),
            (
                "%{d2}.trusted-domains.example.net",
                "example.com.trusted-domains.example.net",
            ),
        ] {
            let spec = DomainSpec::parse(text).unwrap();
            assert_eq!(spec.expand(&values("192.0.2.3")), meant, "{text}");
        }
        let six = DomainSpec::parse("%{ir}.%{v}._spf.%{d2}").unwrap();
        assert_eq!(
            six.expand(&values("2001:db8::cb01")),
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
        );
    }

    #[test]
    fn a_name_too_long_loses_labels_at_its_left() {
        let long = format!("{}example.com", "abcdefghi.".repeat(30));
        let spec = DomainSpec::parse(&long).unwrap();
        let values = Values {
            address: "192.0.2.3".parse().unwrap(),
            local: "a",
            sender_domain: "b.example",
            domain: "b.example",
            helo: "c.example",
            validated: "unknown",
        };
        let name = spec.expand(&values);
        assert!(name.len() <= 253 && name.ends_with("abcdefghi.example.com"));
    }
}
