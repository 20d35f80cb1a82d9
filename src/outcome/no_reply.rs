//! Judging what ended a delivery without a reply: by what went wrong.

use crate::mail::Stage;
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
