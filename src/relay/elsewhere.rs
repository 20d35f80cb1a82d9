//! Whether what one server lacks for a message is the relay's last word, or another of its
//! servers may have it (RFC 5321 section 5.1).

use super::RelayError;
use super::connect::Connection;
use super::lessons::Lessons;
use crate::smtp::Extensions;

/// Why what a server lacks is not the relay's last word.
pub(super) enum Provisional {
    /// It is one of the fallback servers that are configured.
    Fallback,
    /// Mail servers of a lower preference were not reached.
    NotFirst,
    /// It answered EHLO with this, and took HELO.
    NoEhlo(String),
}

impl Connection {
    /// Notes what this server offers, and what is known of those that are as good.
    pub(super) fn compare(&mut self, lessons: &Lessons, name: &str, firsts: &[String]) {
        let relay = &self.target.relay.name;
        lessons.offers(relay, name, &self.offered);
        if !firsts.iter().any(|it| it == name) {
            self.provisional = Some(Provisional::NotFirst);
            return;
        }
        let others = firsts.iter().filter(|it| *it != name);
        self.equals = others.map(|it| lessons.offered(relay, it)).collect();
    }

    /// What this server lacks for a message, if another of the relay's may have it: no
    /// message ends because the best server is away, or its EHLO was not taken.
    pub(super) fn said_here(&self, error: RelayError) -> RelayError {
        if !matches!(
            error,
            RelayError::Unsupported { .. } | RelayError::TooLarge { .. }
        ) {
            return error;
        }
        let lacks = |offered: &Extensions| match &error {
            RelayError::Unsupported { what: "8BITMIME" } => !offered.eight_bit_mime,
            RelayError::TooLarge { size_bytes, .. } => {
                (offered.size.flatten()).is_some_and(|limit_bytes| limit_bytes < *size_bytes)
            }
            _ => !offered.smtputf8,
        };
        let (why, first_is_away) = match &self.provisional {
            Some(Provisional::Fallback) => ("it is a fallback server".to_owned(), true),
            Some(Provisional::NotFirst) => {
                let why = "it is not the first of the relay's mail servers";
                (why.to_owned(), true)
            }
            Some(Provisional::NoEhlo(said)) => (format!("it answered EHLO with {said}"), false),
            None if self.equals.iter().all(|it| it.as_ref().is_some_and(lacks)) => return error,
            None => ("another of the relay's mail servers may".to_owned(), false),
        };
        RelayError::NotHere {
            what: format!("at {}: {error}", self.server),
            why,
            first_is_away,
        }
    }
}
