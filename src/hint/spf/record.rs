//! An SPF record, read by the grammar of RFC 7208 section 12.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::macros::DomainSpec;

/// A record whose syntax is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The mechanisms with their qualifiers, in order.
    pub directives: Vec<Directive>,
    /// `redirect=`
    pub redirect: Option<DomainSpec>,
}

/// A mechanism and what its match means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// What a match means.
    pub qualifier: Qualifier,
    /// What is matched.
    pub mechanism: Mechanism,
    /// As it was written.
    pub text: String,
}

/// What the match of a mechanism means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qualifier {
    /// `+`, or nothing written.
    Pass,
    /// `?`
    Neutral,
    /// `~`
    SoftFail,
    /// `-`
    Fail,
}

/// What the address of a client is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mechanism {
    /// Everything.
    All,
    /// What another domain's record passes.
    Include(DomainSpec),
    /// The addresses of a name; none: the domain itself.
    A(Option<DomainSpec>, Lengths),
    /// The addresses of the mail servers of a name.
    Mx(Option<DomainSpec>, Lengths),
    /// The names of the address.
    Ptr(Option<DomainSpec>),
    /// A network.
    Network(IpNet),
    /// Whether a name has an address.
    Exists(DomainSpec),
}

impl Mechanism {
    /// Whether it costs one of the ten look-ups (RFC 7208 section 4.6.4).
    pub fn looks_up(&self) -> bool {
        !matches!(self, Self::All | Self::Network(_))
    }
}

/// The lengths of the networks that `a` and `mx` match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Of IPv4 networks.
    pub four: u8,
    /// Of IPv6 networks.
    pub six: u8,
}

/// A term that is no term.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{term}\" {what}")]
pub struct SyntaxError {
    /// The term as written.
    pub term: String,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Whether a TXT record is an SPF record at all (RFC 7208 section 4.5).
pub fn is_spf(text: &str) -> bool {
    text.get(..6)
        .is_some_and(|it| it.eq_ignore_ascii_case("v=spf1"))
        && matches!(text.as_bytes().get(6), None | Some(b' '))
}

/// The terms of a record as written, without its version.
pub fn terms(text: &str) -> impl Iterator<Item = &str> {
    let behind = text.get(6..).unwrap_or_default();
    behind.split(' ').filter(|it| !it.is_empty())
}

impl Record {
    /// Reads a TXT record for which [`is_spf`] holds.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut record = Self {
            directives: Vec::new(),
            redirect: None,
        };
        let mut explained = false;
        for term in terms(text) {
            let wrong = |what| SyntaxError {
                term: term.to_owned(),
                what,
            };
            let (name, value) = match term.find(['=', ':', '/']) {
                Some(at) if term.as_bytes()[at] == b'=' => (&term[..at], &term[at + 1..]),
                _ => {
                    record
                        .directives
                        .push(Directive::parse(term).map_err(wrong)?);
                    continue;
                }
            };
            if !is_modifier_name(name) {
                return Err(wrong("is neither a mechanism nor a modifier"));
            }
            match name.to_ascii_lowercase().as_str() {
                "redirect" => {
                    let target = DomainSpec::parse(value);
                    let target = target.ok_or(wrong("names no domain"))?;
                    if record.redirect.replace(target).is_some() {
                        return Err(wrong("stands there twice"));
                    }
                }
                "exp" => {
                    DomainSpec::parse(value).ok_or(wrong("names no domain"))?;
                    if std::mem::replace(&mut explained, true) {
                        return Err(wrong("stands there twice"));
                    }
                }
                _ if DomainSpec::is_macro_string(value) => {}
                _ => return Err(wrong("has a macro that is not one")),
            }
        }
        Ok(record)
    }
}

fn is_modifier_name(name: &str) -> bool {
    name.starts_with(|it: char| it.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it))
}

impl Directive {
    fn parse(term: &str) -> Result<Self, &'static str> {
        let (qualifier, rest) = match term.as_bytes().first() {
            Some(b'+') => (Qualifier::Pass, &term[1..]),
            Some(b'?') => (Qualifier::Neutral, &term[1..]),
            Some(b'~') => (Qualifier::SoftFail, &term[1..]),
            Some(b'-') => (Qualifier::Fail, &term[1..]),
            _ => (Qualifier::Pass, term),
        };
        let end = rest.find([':', '/']).unwrap_or(rest.len());
        let (name, argument) = rest.split_at(end);
        let alone = |it: Mechanism| match argument.is_empty() {
            true => Ok(it),
            false => Err("takes nothing behind it"),
        };
        let named = || {
            let spec = argument.strip_prefix(':').and_then(DomainSpec::parse);
            spec.ok_or("names no domain")
        };
        let mechanism = match name.to_ascii_lowercase().as_str() {
            "all" => alone(Mechanism::All)?,
            "include" => Mechanism::Include(named()?),
            "exists" => Mechanism::Exists(named()?),
            "ptr" if argument.is_empty() => Mechanism::Ptr(None),
            "ptr" => Mechanism::Ptr(Some(named()?)),
            "a" => {
                let (spec, lengths) = addressed(argument)?;
                Mechanism::A(spec, lengths)
            }
            "mx" => {
                let (spec, lengths) = addressed(argument)?;
                Mechanism::Mx(spec, lengths)
            }
            "ip4" => Mechanism::Network(ip4(argument).ok_or("is not an IPv4 network")?),
            "ip6" => Mechanism::Network(ip6(argument).ok_or("is not an IPv6 network")?),
            _ => return Err("is not a mechanism"),
        };
        Ok(Self {
            qualifier,
            mechanism,
            text: term.to_owned(),
        })
    }
}

/// What stands behind `a` and `mx`: perhaps a name, perhaps one length or two.
fn addressed(argument: &str) -> Result<(Option<DomainSpec>, Lengths), &'static str> {
    const WRONG: &str = "has no valid network length";
    let (rest, six) = match split_number(argument, "//") {
        Some((rest, number)) => (rest, length(number, 128).ok_or(WRONG)?),
        None => (argument, 128),
    };
    let (rest, four) = match split_number(rest, "/") {
        Some((rest, number)) => (rest, length(number, 32).ok_or(WRONG)?),
        None => (rest, 32),
    };
    let spec = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return Err(WRONG),
        Some(name) => Some(DomainSpec::parse(name).ok_or("names no domain")?),
    };
    Ok((spec, Lengths { four, six }))
}

/// Takes digits and the slashes before them off the end.
fn split_number<'a>(text: &'a str, slashes: &str) -> Option<(&'a str, &'a str)> {
    let rest = text.trim_end_matches(|it: char| it.is_ascii_digit());
    let number = &text[rest.len()..];
    let before = rest.strip_suffix(slashes)?;
    (!number.is_empty() && !before.ends_with('/')).then_some((before, number))
}

/// No leading zeroes, and not longer than an address.
fn length(number: &str, most: u8) -> Option<u8> {
    let plain = number == "0" || !number.starts_with('0');
    number.parse().ok().filter(|it| plain && *it <= most)
}

fn ip4(argument: &str) -> Option<IpNet> {
    let text = argument.strip_prefix(':')?;
    let (address, length) = match text.split_once('/') {
        Some((address, number)) => (address, length(number, 32)?),
        None => (text, 32),
    };
    let address: Ipv4Addr = address.parse().ok()?;
    Ipv4Net::new(address, length)
        .ok()
        .map(|it| it.trunc().into())
}

fn ip6(argument: &str) -> Option<IpNet> {
    let text = argument.strip_prefix(':')?;
    let (address, length) = match text.split_once('/') {
        Some((address, number)) => (address, length(number, 128)?),
        None => (text, 128),
    };
    let address: Ipv6Addr = address.parse().ok()?;
    Ipv6Net::new(address, length)
        .ok()
        .map(|it| it.trunc().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_told_from_other_texts_by_its_version() {
        for text in ["v=spf1", "V=SPF1 -all", "v=spf1 "] {
            assert!(is_spf(text), "{text}");
        }
        for text in [
            "v=spf10",
            "v=spf2.0/pra",
            "spf1",
            "v=spf1\t-all",
            "",
            " v=spf1",
            "v=spf\u{e9}",
        ] {
            assert!(!is_spf(text), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_of_the_term_that_is() {
        let wrong = |text: &str| Record::parse(text).unwrap_err().to_string();
        assert_eq!(
            wrong("v=spf1 ip:192.0.2.1 -all"),
            "\"ip:192.0.2.1\" is not a mechanism"
        );
        assert_eq!(
            wrong("v=spf1 a:192.0.2.1"),
            "\"a:192.0.2.1\" names no domain"
        );
        assert_eq!(
            wrong("v=spf1 ip4:192.0.2.1/33"),
            "\"ip4:192.0.2.1/33\" is not an IPv4 network"
        );
        assert_eq!(
            wrong("v=spf1 mx/33"),
            "\"mx/33\" has no valid network length"
        );
        assert_eq!(
            wrong("v=spf1 -all:x.example"),
            "\"-all:x.example\" takes nothing behind it"
        );
        assert_eq!(
            wrong("v=spf1 redirect=a.example redirect=b.example"),
            "\"redirect=b.example\" stands there twice"
        );
    }

    #[test]
    fn names_and_lengths_are_told_apart() {
        let record = Record::parse("v=spf1 A:b.example/24//64 mx//0 a:%{i/}.example -ALL").unwrap();
        let lengths = |place: usize| match &record.directives[place].mechanism {
            Mechanism::A(_, lengths) | Mechanism::Mx(_, lengths) => (lengths.four, lengths.six),
            other => panic!("{other:?}"),
        };
        assert_eq!(lengths(0), (24, 64));
        assert_eq!(lengths(1), (32, 0));
        assert_eq!(lengths(2), (32, 128));
        assert_eq!(record.directives[3].qualifier, Qualifier::Fail);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd_to_be_read(text in "v=spf1 (\\PC{0,60}|[a-z0-9:/.%{}+~? =-]{0,80})") {
            let _ = Record::parse(&text);
        }
    }
}
