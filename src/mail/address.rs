//! Addresses: one that exists was right.
//!
//! Parsing follows RFC 5321 section 4.1.2 and, for addresses beyond ASCII, RFC 6531
//! section 3.3. Quoting is taken off when an address is read and put back, where it is
//! needed, when it is printed: `"jan"@example.nl` and `jan@example.nl` are one address.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use icu_normalizer::ComposingNormalizerBorrowed;

/// Longer than RFC 5321 section 4.5.3.1.1 obliges (64), because bounce addresses of
/// mailing software are; the path's limit below still holds.
const LOCAL_PART_MAXIMUM: usize = 255;
/// RFC 5321 section 4.5.3.1.2.
const DOMAIN_MAXIMUM: usize = 255;

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@` outside quotes.
    #[error("an address needs an @, like jan@example.nl")]
    NoAt,
    /// The part before the `@` is empty or has an octet that only quotes may hold.
    #[error("the part before the @ is not a valid local part")]
    LocalPart,
    /// The part after the `@` is neither a domain nor an address literal.
    #[error("the part after the @ is not a valid domain")]
    Domain,
    /// One of the two parts is longer than 255 octets.
    #[error("the address is too long")]
    TooLong,
}

/// The host of an address: a domain name or an address literal like `[192.0.2.1]`.
///
/// Keeps what was written for printing; compares as A-labels without regard to case
/// (RFC 5890), so `Bücher.example` equals `xn--bcher-kva.example`.
#[derive(Clone)]
pub struct Domain {
    written: String,
    ascii: String,
}

impl Domain {
    /// Reads a domain or an address literal.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > DOMAIN_MAXIMUM {
            return Err(AddressError::TooLong);
        }
        if let Some(literal) = text.strip_prefix('[') {
            let inside = literal.strip_suffix(']').ok_or(AddressError::Domain)?;
            let ascii = match address_literal(inside).ok_or(AddressError::Domain)? {
                IpAddr::V4(address) => format!("[{address}]"),
                IpAddr::V6(address) => format!("[ipv6:{address}]"),
            };
            return Ok(Self {
                written: text.to_owned(),
                ascii,
            });
        }
        // One trailing dot names the root, and old clients write it; it is not sent on.
        let written = text.strip_suffix('.').unwrap_or(text);
        let ascii = if written.is_ascii() {
            written.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(written).map_err(|_| AddressError::Domain)?
        };
        let label = |it: &str| {
            !it.is_empty()
                && it.len() <= 63
                // The underscore is no letter of RFC 5321, but hosts are named with it.
                && it.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
                && !it.starts_with('-')
                && !it.ends_with('-')
        };
        if ascii.len() > DOMAIN_MAXIMUM || !ascii.split('.').all(label) {
            return Err(AddressError::Domain);
        }
        Ok(Self {
            written: written.to_owned(),
            ascii,
        })
    }

    /// As it was written.
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// In lower case and as A-labels: for comparing, for look-ups, for DNS.
    pub fn ascii(&self) -> &str {
        &self.ascii
    }

    /// The address inside a literal; none for a domain name.
    pub fn literal(&self) -> Option<IpAddr> {
        let inside = self.ascii.strip_prefix('[')?.strip_suffix(']')?;
        match inside.strip_prefix("ipv6:") {
            Some(six) => six.parse().ok().map(IpAddr::V6),
            None => inside.parse().ok().map(IpAddr::V4),
        }
    }
}

/// RFC 5321 section 4.1.3; a bare IPv6 address without its tag is taken, too, because
/// nothing else could be meant.
fn address_literal(inside: &str) -> Option<IpAddr> {
    let tagged = inside
        .get(..5)
        .is_some_and(|tag| tag.eq_ignore_ascii_case("ipv6:"));
    if tagged {
        return inside[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    inside
        .parse::<Ipv4Addr>()
        .map(IpAddr::V4)
        .or_else(|_| inside.parse::<Ipv6Addr>().map(IpAddr::V6))
        .ok()
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        self.ascii == other.ascii
    }
}

impl Eq for Domain {}

impl Hash for Domain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ascii.hash(state);
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A local part at a domain (RFC 5321 section 4.1.2, `Mailbox`).
///
/// The local part keeps its case: only the receiving host may decide whether `Bob` and
/// `bob` are one person (RFC 5321 section 2.4). Only our own directory look-up folds
/// it, with [`folded`](Self::folded).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local: String,
    domain: Domain,
}

impl Mailbox {
    /// Reads `local@domain`; quotes around the local part are taken off.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local, rest) = if text.starts_with('"') {
            quoted_string(text).ok_or(AddressError::LocalPart)?
        } else {
            let at = text.rfind('@').ok_or(AddressError::NoAt)?;
            if !is_dot_string(&text[..at]) {
                return Err(AddressError::LocalPart);
            }
            (text[..at].to_owned(), &text[at..])
        };
        if local.len() > LOCAL_PART_MAXIMUM {
            return Err(AddressError::TooLong);
        }
        let domain = Domain::parse(rest.strip_prefix('@').ok_or(AddressError::NoAt)?)?;
        Ok(Self { local, domain })
    }

    /// A mailbox from its two parts, the local part without quotes.
    pub fn new(local: &str, domain: Domain) -> Result<Self, AddressError> {
        if local.len() > LOCAL_PART_MAXIMUM {
            return Err(AddressError::TooLong);
        }
        if local.is_empty() || local.chars().any(char::is_control) {
            return Err(AddressError::LocalPart);
        }
        Ok(Self {
            local: local.to_owned(),
            domain,
        })
    }

    /// The part before the `@`, without quotes.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The part after the `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The one spelling by which the directory knows this address: lower case, composed
    /// (NFC, RFC 6532 section 3.1), the domain as A-labels.
    ///
    /// Without quotes, whatever the local part is: it stands in the spool's index and in
    /// the signatures of the history, which outlive a version. It is a key and no address;
    /// only [`from_folded`](Self::from_folded) reads it back.
    pub fn folded(&self) -> String {
        format!("{}@{}", folded(&self.local), self.domain.ascii)
    }

    /// Reads what [`folded`](Self::folded) wrote: no domain has an `@`, so the last one
    /// ends the local part, which has no quotes.
    pub fn from_folded(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::NoAt)?;
        if local.is_empty() || local.chars().any(char::is_control) {
            return Err(AddressError::LocalPart);
        }
        Ok(Self {
            // In lower case it may be longer than what was read.
            local: local.to_owned(),
            domain: Domain::parse(domain)?,
        })
    }

    /// The address with the domain as A-labels: plain ASCII unless the local part goes
    /// beyond it.
    pub fn with_a_labels(&self) -> String {
        let written = self.to_string();
        match written.strip_suffix(&self.domain.written) {
            Some(front) => format!("{front}{}", self.domain.ascii),
            None => written,
        }
    }

    /// Whether every octet is ASCII as written: otherwise SMTPUTF8 is needed to send it.
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii() && self.domain.written.is_ascii()
    }
}

/// The one spelling of a login name; one that is an address compares like one.
pub fn folded_login(name: &str) -> String {
    Mailbox::parse(name).map_or_else(|_| folded(name), |it| it.folded())
}

/// In lower case and composed: `ü` is one letter, whether it was typed as one or as a `u`
/// with its dots behind it. Composed first, too: lower case looks at whole letters.
fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    let lower = nfc.normalize(text).to_lowercase();
    nfc.normalize(&lower).into_owned()
}

/// Takes a quoted string off the front: what it says, and the rest behind it.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut said = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' if said.is_empty() => return None,
            '"' => return Some((said, &text[place + 1..])),
            '\\' => said.push(
                letters
                    .next()
                    .map(|(_, it)| it)
                    .filter(|it| !it.is_control())?,
            ),
            _ if letter.is_control() => return None,
            _ => said.push(letter),
        }
    }
    None
}

/// RFC 5321 `Dot-string`, of RFC 6531's letters.
///
/// Two dots in a row, or one at an end, are refused by the standard and used by real
/// mailboxes of Japanese providers; they are taken, because they cannot be misread.
fn is_dot_string(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|letter| {
            letter.is_ascii_alphanumeric()
                || "!#$%&'*+-/=?^_`{|}~.".contains(letter)
                || (!letter.is_ascii() && !letter.is_control())
        })
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            return write!(f, "{}@{}", self.local, self.domain);
        }
        f.write_str("\"")?;
        for letter in self.local.chars() {
            if letter == '"' || letter == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{letter}")?;
        }
        write!(f, "\"@{}", self.domain)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

/// The sender of a transaction: the argument of MAIL FROM.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: a delivery status notification, which nobody may bounce again
    /// (RFC 5321 section 4.5.5).
    Null,
    /// The mailbox that gets the reports.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox that gets reports; none for the null reverse-path.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Reads what stands between the angle brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        Mailbox::parse(text).map(Self::Mailbox)
    }
}

impl fmt::Display for ReversePath {
    /// Without the angle brackets: empty for the null reverse-path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

impl fmt::Debug for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

/// One recipient of a transaction: the argument of RCPT TO.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain (RFC 5321 section 4.5.1).
    Postmaster,
    /// Any other recipient.
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// Reads what stands between the angle brackets, behind the source route if there is one.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        Mailbox::parse(text).map(Self::Mailbox)
    }

    /// The mailbox; none for `<postmaster>`.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Whether every octet is ASCII as written.
    pub fn is_ascii(&self) -> bool {
        self.mailbox().is_none_or(Mailbox::is_ascii)
    }
}

impl fmt::Display for ForwardPath {
    /// Without the angle brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

impl fmt::Debug for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_and_extraordinary_mailboxes_are_read() {
        for (text, local, domain) in [
            ("jan@example.nl", "jan", "example.nl"),
            ("Jan.Jansen+tag@Example.NL", "Jan.Jansen+tag", "Example.NL"),
            ("\"jan jansen\"@example.nl", "jan jansen", "example.nl"),
            (r#""a\"b\\c@d"@example.nl"#, r#"a"b\c@d"#, "example.nl"),
            ("jan@[192.0.2.1]", "jan", "[192.0.2.1]"),
            ("jan@[IPv6:2001:db8::1]", "jan", "[IPv6:2001:db8::1]"),
            ("jürgen@bücher.example", "jürgen", "bücher.example"),
            ("jan@localhost", "jan", "localhost"),
            ("jan@example.nl.", "jan", "example.nl"),
            ("a..b.@example.nl", "a..b.", "example.nl"),
        ] {
            let mailbox = Mailbox::parse(text).unwrap();
            assert_eq!(
                (mailbox.local(), mailbox.domain().as_written()),
                (local, domain),
                "{text}"
            );
            assert_eq!(
                Mailbox::parse(&mailbox.to_string()).unwrap(),
                mailbox,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_mailbox_is_refused() {
        for text in [
            "",
            "@",
            "jan",
            "jan@",
            "@example.nl",
            "jan jansen@example.nl",
            "a@b@example.nl",
            "jan@exa mple.nl",
            "jan@-a.nl",
            "jan@a-.nl",
            "jan@a..nl",
            "jan@[192.0.2.256]",
            "jan@[192.0.2.1",
            "\"\"@example.nl",
            "\"a@example.nl",
            "\"a\"b@example.nl",
            "a\r\n@example.nl",
            "\"a\r\"@example.nl",
            "a\u{85}b@example.nl",
            "jan@<x>",
            "<jan@example.nl>",
        ] {
            assert!(Mailbox::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(
            Mailbox::parse(&format!("{}@example.nl", "x".repeat(256))),
            Err(AddressError::TooLong)
        );
    }

    #[test]
    fn domains_compare_as_a_labels_without_case() {
        let domain = |text| Domain::parse(text).unwrap();
        assert_eq!(domain("BÜCHER.example"), domain("xn--bcher-kva.EXAMPLE"));
        assert_eq!(domain("[IPv6:2001:DB8:0::1]"), domain("[ipv6:2001:db8::1]"));
        assert_eq!(
            domain("[192.0.2.1]").literal(),
            Some("192.0.2.1".parse().unwrap())
        );
        assert_ne!(domain("a.example"), domain("b.example"));
    }

    #[test]
    fn paths_know_their_special_cases() {
        assert_eq!(ReversePath::parse("").unwrap(), ReversePath::Null);
        assert_eq!(
            ForwardPath::parse("PostMaster").unwrap(),
            ForwardPath::Postmaster
        );
    }

    #[test]
    fn a_letter_is_the_same_however_its_accents_were_typed() {
        let folded = |text| Mailbox::parse(text).unwrap().folded();
        assert_eq!(folded("Ju\u{308}rgen@a.nl"), folded("j\u{fc}rgen@a.nl"));
        assert_eq!(folded("\u{212b}@a.nl"), folded("a\u{30a}@a.nl"));
        assert_ne!(folded("jurgen@a.nl"), folded("j\u{fc}rgen@a.nl"));
        assert_eq!(folded_login("JU\u{308}R"), "j\u{fc}r");
        assert_eq!(folded_login("JU\u{308}R@A.nl"), "j\u{fc}r@a.nl");
    }

    #[test]
    fn what_the_directory_knows_of_a_mailbox_is_read_back() {
        for text in [
            "\"jan jansen\"@example.nl",
            "Jan@[IPv6:2001:DB8::1]",
            r#""a\"b\\c@d"@Example.nl"#,
            "\"\u{130}\"@b\u{fc}cher.example",
            "U\u{308}x\u{345}\u{301}@example.nl",
        ] {
            let folded = Mailbox::parse(text).unwrap().folded();
            let read = Mailbox::from_folded(&folded).unwrap();
            assert_eq!(read.folded(), folded);
            assert_eq!(Mailbox::parse(&read.to_string()).unwrap(), read);
        }
        for text in ["", "jan", "@example.nl", "jan@", "a\n@example.nl"] {
            assert!(Mailbox::from_folded(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_it_takes_prints_to_itself(text in "\\PC{0,40}|[\"\\\\a@.\\[\\]]{0,12}") {
            if let Ok(mailbox) = Mailbox::parse(&text) {
                let folded = mailbox.folded();
                prop_assert_eq!(Mailbox::from_folded(&folded).unwrap().folded(), folded);
                prop_assert_eq!(Mailbox::parse(&mailbox.to_string()), Ok(mailbox));
            }
        }
    }
}
