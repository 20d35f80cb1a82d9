//! Judging what ended a delivery without a reply: by what went wrong.

use std::time::Duration;

use crate::mail::{EnhancedStatus, Stage};
use crate::relay::RelayError;

use super::fallback;
use super::finding::{Action, Class, Finding, Refusal};

/// Judges a failed attempt that is not a refusal.
pub fn judge(error: &RelayError) -> Finding {
    let (class, action, remedy, rule) = match error {
        RelayError::NoServer { .. } => (
            Class::Unreachable,
            Action::PauseRelay,
            "Check the relay's server name in the configuration; in brackets it is looked \
             up without MX records.",
            "no server",
        ),
        RelayError::Dns { .. } => (
            Class::Unreachable,
            Action::PauseRelay,
            "DNS does not answer: check the resolver of this machine (resolvectl status, \
             /etc/resolv.conf).",
            "dns",
        ),
        RelayError::Connect { .. } => (
            Class::Unreachable,
            Action::PauseRelay,
            "Check server name and port, and whether a firewall lets this machine out on \
             that port. Many networks block port 25; 587 and 465 are meant for submission.",
            "no connection",
        ),
        RelayError::Tls { .. } => (
            Class::Tls,
            Action::PauseRelay,
            "Check that the certificate is valid for the configured name; otherwise set \
             tls-name, ca-file or fingerprint for this relay. On port 465 TLS starts at \
             once, on 587 after STARTTLS.",
            "tls",
        ),
        RelayError::NoSecureLogin { .. } => (
            Class::Tls,
            Action::PauseRelay,
            "The server offers no STARTTLS on this port: use port 587 or 465. Only where \
             the network between is trusted write tls = \"off\".",
            "no tls for the login",
        ),
        RelayError::AuthUnavailable { .. } => (
            Class::NotLoggedIn,
            Action::PauseRelay,
            "The server offers no way of logging in that is configured here: use port 587 \
             or 465, or set auth for this relay to what it offers.",
            "no login mechanism",
        ),
        RelayError::Token(trouble) => {
            let (class, rule) = match trouble.is_passing() {
                true => (Class::Unreachable, "no token for now"),
                false => (Class::NotLoggedIn, "no token"),
            };
            return fallback::finding(class, Action::PauseRelay, &trouble.remedy(), rule.into());
        }
        RelayError::Unsupported { what: "8BITMIME" } => (
            Class::Protocol,
            Action::FailMessage,
            "The message has octets beyond ASCII and the relay does not offer 8BITMIME: have the \
             application encode them (quoted-printable or base64; in header fields RFC 2047), or \
             send it through another relay.",
            "extension missing",
        ),
        RelayError::Unsupported { .. } => (
            Class::Protocol,
            Action::FailMessage,
            "An address has letters beyond ASCII and the relay does not offer SMTPUTF8: use an \
             address in ASCII, or another relay.",
            "extension missing",
        ),
        RelayError::NotHere { .. } => (
            Class::Protocol,
            Action::Retry,
            "The server that was reached cannot carry this message, and perhaps another of the \
             relay's can: see that the first one can be reached and takes EHLO.",
            "not at this server",
        ),
        RelayError::Chunking { .. } => (
            Class::Protocol,
            Action::Retry,
            "The server offers CHUNKING and does not know BDAT, so DATA is used for this relay \
             from now on.",
            "chunking refused",
        ),
        RelayError::TooLarge { .. } => (
            Class::TooLarge,
            Action::FailMessage,
            "The message is larger than what the relay announces: send the file as a link, \
             or have the relay's limit raised.",
            "size announced",
        ),
        RelayError::Garbage { stage, .. } | RelayError::Closed { stage, .. }
            if *stage < Stage::Mail =>
        {
            (
                Class::Unreachable,
                Action::PauseRelay,
                "The server drops the connection or does not talk SMTP: check the port (465 \
                 starts with TLS, 587 and 25 do not) and whether something between \
                 intercepts it.",
                "no smtp",
            )
        }
        RelayError::Silent { stage, .. } if *stage < Stage::Mail => (
            Class::Unreachable,
            Action::PauseRelay,
            "The server accepts the connection and says nothing: check the port (465 starts \
             with TLS, 587 and 25 do not), or wait until it has recovered.",
            "silence",
        ),
        RelayError::Garbage { .. } => (
            Class::Temporary,
            Action::Retry,
            "The server answered something that is not SMTP. If it stays so, look for a \
             firewall or mail scanner in between.",
            "no smtp",
        ),
        RelayError::Closed { .. } => (
            Class::Temporary,
            Action::Retry,
            "The connection broke off. If it always breaks with large messages, look at the \
             MTU and at firewalls in between.",
            "connection lost",
        ),
        RelayError::Silent { .. } => (
            Class::Temporary,
            Action::Retry,
            "The server did not answer in time. If it stays so, it may be overloaded, or \
             scan mail for longer than the time limit.",
            "silence",
        ),
        RelayError::Ours { .. } => (
            Class::Temporary,
            Action::Retry,
            "Penstock could not read or record the message: see its log and the state of \
             the disk.",
            "our own trouble",
        ),
        RelayError::Cancelled => (
            Class::Temporary,
            Action::Retry,
            "Penstock stopped before it was sent; it goes out after the start.",
            "stopped",
        ),
        RelayError::Refused { stage, reply } => {
            return fallback::judge(&Refusal {
                stage: Some(*stage),
                code: Some(reply.code),
                enhanced: reply.enhanced,
                ..Refusal::default()
            });
        }
    };
    fallback::finding(class, action, remedy, rule.to_owned())
}

/// Judges words without a reply code that tell of no reply: ours, as `relay test`, `show` and
/// a report word them, and what TLS libraries and the system say everywhere.
pub fn by_words(text: &str, status: Option<EnhancedStatus>) -> Option<Finding> {
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|it| text.contains(it));
    let nothing = String::new;
    let error = if says(&["our own trouble:"]) {
        RelayError::Ours { detail: nothing() }
    } else if says(&["offers no tls, and the password"]) {
        RelayError::NoSecureLogin { server: nothing() }
    } else if says(&["no usable login mechanism"]) {
        RelayError::AuthUnavailable { offered: nothing() }
    } else if says(CERTIFICATE) {
        RelayError::Tls {
            server: nothing(),
            detail: nothing(),
        }
    } else if says(&["no reply at greeting"]) {
        RelayError::Silent {
            stage: Stage::Greeting,
            after: Duration::ZERO,
        }
    } else if says(&["cannot look up "]) || (status.is_none() && says(RESOLVER)) {
        RelayError::Dns {
            name: nothing(),
            detail: nothing(),
        }
    } else if says(&["cannot connect to "]) || (status.is_none() && says(NETWORK)) {
        // With a status it is another server's word about the next one (4.4.1).
        RelayError::Connect {
            server: nothing(),
            detail: nothing(),
        }
    } else {
        return None;
    };
    Some(Finding {
        fallback: false,
        ..judge(&error)
    })
}

const CERTIFICATE: &[&str] = &[
    "the certificate is not for ",
    "the certificate names no host",
    "the certificate is a ca certificate",
    "the certificate has expired",
    "certificate has expired",
    "certificate verify failed",
    "certificate verification failed",
    "signed by nobody who is trusted here",
    "self-signed certificate",
    "self signed certificate",
    "unable to get local issuer certificate",
    "does not answer with tls",
    "no tls with ",
    "tls handshake failed",
    "ssl handshake failed",
    "wrong version number",
];
const RESOLVER: &[&str] = &[
    "temporary failure in name resolution",
    "name or service not known",
    "could not resolve host",
];
const NETWORK: &[&str] = &[
    "connection refused",
    "connection timed out",
    "no route to host",
    "network is unreachable",
    "host is unreachable",
];

#[cfg(test)]
mod tests {
    use super::super::{bounce::Said, classify, rules::Rules};
    use super::*;

    #[test]
    fn words_of_a_connection_that_failed_are_explained_by_what_they_are() {
        for (text, class, rule) in [
            (
                "SSL: CERTIFICATE_VERIFY_FAILED certificate verify failed: self-signed certificate",
                Class::Tls,
                "tls",
            ),
            (
                "4.7.5 the certificate is not for smtp.example.nl but for mx.example.net",
                Class::Tls,
                "tls",
            ),
            (
                "no TLS with smtp.example.nl: the certificate has expired",
                Class::Tls,
                "tls",
            ),
            (
                "smtp.example.nl offers no TLS, and the password is not sent in clear",
                Class::Tls,
                "no tls for the login",
            ),
            ("Connection refused", Class::Unreachable, "no connection"),
            (
                "4.4.1 cannot connect to smtp.example.nl:587: connection refused",
                Class::Unreachable,
                "no connection",
            ),
            (
                "no reply at greeting within 30 s",
                Class::Unreachable,
                "silence",
            ),
            (
                "cannot look up smtp.example.nl: no answer",
                Class::Unreachable,
                "dns",
            ),
        ] {
            let said = Said::read(text);
            let it = classify(Rules::compiled_in(), &said.refusal());
            assert_eq!(
                (it.class, it.action, it.rule.as_str()),
                (class, Action::PauseRelay, rule),
                "{text}"
            );
            assert!(!it.fallback && it.is_known(), "{text}");
        }
    }

    #[test]
    fn a_server_that_says_the_same_words_with_a_code_or_a_status_is_judged_by_those() {
        for (text, class) in [
            ("421 Connection refused", Class::Temporary),
            ("554 5.7.1 Connection refused", Class::Refused),
            (
                "4.4.1 connect to mx.example.org: Connection refused",
                Class::Temporary,
            ),
        ] {
            let said = Said::read(text);
            let it = classify(Rules::compiled_in(), &said.refusal());
            assert_eq!(it.class, class, "{text}: {}", it.rule);
        }
    }
}
