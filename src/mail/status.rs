//! Enhanced mail system status codes (RFC 3463).

use std::fmt;
use std::str::FromStr;

/// A status like `5.7.1`: class, subject, detail (RFC 3463 section 2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnhancedStatus {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// What it is about: addressing, mailbox, system, network, protocol, content, policy.
    pub subject: u16,
    /// The detail within the subject.
    pub detail: u16,
}

impl EnhancedStatus {
    /// A status from its three numbers.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self {
            class,
            subject,
            detail,
        }
    }

    /// The first status in a text that is no success, as in `(#5.7.1)` or `550 5.1.1 ...`.
    ///
    /// Part of an address (`5.7.1.2`) or of a version is none.
    pub fn find_in(text: &str) -> Option<Self> {
        text.split(|it: char| !(it.is_ascii_alphanumeric() || it == '.' || it == '-'))
            .take(400)
            .map(|word| word.trim_matches('.'))
            .map(|word| word.rsplit('-').next().unwrap_or(word))
            .find_map(|word| word.parse().ok().filter(|it: &Self| it.class != 2))
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl fmt::Debug for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an enhanced status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status like 5.7.1")]
pub struct NotAStatus;

impl FromStr for EnhancedStatus {
    type Err = NotAStatus;

    /// Strict: class 2, 4 or 5, then two numbers of one to three digits without
    /// leading zeros (RFC 3463 section 2).
    fn from_str(text: &str) -> Result<Self, NotAStatus> {
        let mut parts = text.split('.');
        let class = match parts.next() {
            Some("2") => 2,
            Some("4") => 4,
            Some("5") => 5,
            _ => return Err(NotAStatus),
        };
        let mut number = || {
            let part = parts.next().ok_or(NotAStatus)?;
            let digits = part.bytes().all(|it| it.is_ascii_digit());
            if !digits
                || part.is_empty()
                || part.len() > 3
                || (part.len() > 1 && part.starts_with('0'))
            {
                return Err(NotAStatus);
            }
            part.parse().map_err(|_| NotAStatus)
        };
        let status = Self {
            class,
            subject: number()?,
            detail: number()?,
        };
        match parts.next() {
            None => Ok(status),
            Some(_) => Err(NotAStatus),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_back_as_itself() {
        for text in ["2.0.0", "4.3.1", "5.7.139", "5.2.252"] {
            assert_eq!(text.parse::<EnhancedStatus>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for text in [
            "", "5", "5.7", "5.7.1.2", "3.0.0", "5.7.1234", "5.07.1", "5.-7.1", "5. 7.1", "5.7.x",
        ] {
            assert!(text.parse::<EnhancedStatus>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_status_is_found_in_words_and_an_address_is_none() {
        for (text, status) in [
            (
                "sorry, that domain isn't in my list (#5.7.1)",
                Some("5.7.1"),
            ),
            ("5.1.1 unknown", Some("5.1.1")),
            ("550-5.7.26 unauthenticated", Some("5.7.26")),
            ("blocked: 5.7.1.9", None),
            ("version 2.0.0", None),
            ("see 4.4.7.", Some("4.4.7")),
        ] {
            let status: Option<EnhancedStatus> = status.map(|it| it.parse().unwrap());
            assert_eq!(EnhancedStatus::find_in(text), status, "{text}");
        }
    }
}
