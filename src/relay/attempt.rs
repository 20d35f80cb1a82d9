//! What came of handing a message to a relay: values only, their meaning is decided
//! by [`outcome`](crate::outcome).

use std::time::Duration;

use jiff::Timestamp;

use crate::mail::Stage;
use crate::oauth::TokenError;
use crate::smtp::Reply;

/// What one transaction, or the attempt to start one, came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// One for each recipient of the job.
    pub attempts: Vec<Attempt>,
    /// Octets of content were sent: the transaction counts against the limits.
    pub content_sent: bool,
    /// When the reply to the final dot (or last BDAT) came.
    pub final_reply_at: Option<Timestamp>,
    /// The host that was spoken to, `name [address]:port`; empty when none was reached.
    pub server: String,
    /// The final dot was sent and no reply to it was understood.
    pub in_doubt: bool,
    /// The relay offers DSN, so that NOTIFY, RET, ENVID and ORCPT were passed on and
    /// reports of success are its business (RFC 3461 section 5.2.1).
    pub dsn_passed_on: bool,
}

impl Delivery {
    /// Nothing was said about any recipient: its turn had passed, or we are stopping.
    pub fn is_unstarted(&self) -> bool {
        let mut results = self.attempts.iter().map(|it| &it.result);
        results.all(|it| matches!(it, Err(RelayError::Cancelled)))
    }
}

/// One recipient, one try.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The recipient's place in the envelope.
    pub recipient: usize,
    /// The reply that took it (2yz to the final dot), or why it was not taken.
    pub result: Result<Reply, RelayError>,
    /// Where in the dialogue it was decided.
    pub stage: Stage,
    /// When it was decided.
    pub at: Timestamp,
    /// How long the transaction took until then.
    pub took: Duration,
}

impl Attempt {
    /// Whether the relay may have taken the message although it did not say so.
    pub fn in_doubt(&self) -> bool {
        self.stage == Stage::FinalDot
            && matches!(
                self.result,
                Err(RelayError::Garbage { .. }
                    | RelayError::Silent { .. }
                    | RelayError::Closed { .. })
            )
    }
}

/// Why a relay did not take a recipient.
///
/// Words of others in it are already shortened and printable.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RelayError {
    /// The name has no server: it does not exist, has no address, or says that it takes
    /// no mail (RFC 7505).
    #[error("no server for {name}: {detail}")]
    NoServer {
        /// What was looked up.
        name: String,
        /// What DNS said.
        detail: String,
    },
    /// DNS did not answer.
    #[error("cannot look up {name}: {detail}")]
    Dns {
        /// What was looked up.
        name: String,
        /// What went wrong.
        detail: String,
    },
    /// No TCP connection to any server.
    #[error("cannot connect to {server}: {detail}")]
    Connect {
        /// Whom.
        server: String,
        /// What went wrong.
        detail: String,
    },
    /// TLS could not be agreed, or the certificate is not the right one.
    #[error("no TLS with {server}: {detail}")]
    Tls {
        /// With whom.
        server: String,
        /// What went wrong.
        detail: String,
    },
    /// The relay answered 4yz or 5yz.
    #[error("refused at {}: {} {}{}", stage.name(), reply.code, status_of(reply), reply.text())]
    Refused {
        /// At which point.
        stage: Stage,
        /// With which words.
        reply: Reply,
    },
    /// What came is no SMTP reply, or one that cannot stand there.
    #[error("not an SMTP reply at {}: {said}", stage.name())]
    Garbage {
        /// At which point.
        stage: Stage,
        /// What came, or what is wrong with it.
        said: String,
    },
    /// Nothing came within the time limit.
    #[error("no reply at {} within {:.0} s", stage.name(), after.as_secs_f64())]
    Silent {
        /// At which point.
        stage: Stage,
        /// How long we waited.
        after: Duration,
    },
    /// The connection was lost.
    #[error("connection lost at {}: {detail}", stage.name())]
    Closed {
        /// At which point.
        stage: Stage,
        /// What the system said.
        detail: String,
    },
    /// The message needs an extension that the relay does not offer.
    #[error("the relay does not offer {what}")]
    Unsupported {
        /// `8BITMIME` or `SMTPUTF8`.
        what: &'static str,
    },
    /// The message is larger than what the relay announces (RFC 1870).
    #[error("{size_bytes} octets are more than the {limit_bytes} that the relay takes")]
    TooLarge {
        /// What SIZE would have declared.
        size_bytes: u64,
        /// What EHLO announced.
        limit_bytes: u64,
    },
    /// The server that was reached cannot carry the message, which says nothing about the
    /// relay's others: it is a fallback, or nothing is known of what it offers.
    #[error("{what}, and {why}")]
    NotHere {
        /// What it lacks.
        what: String,
        /// Why that is not the relay's last word.
        why: String,
        /// A better server of the relay is away: as long as that is so, it waits.
        first_is_away: bool,
    },
    /// The server offers CHUNKING and does not know BDAT.
    #[error("the server offers CHUNKING and refuses BDAT: {said}")]
    Chunking {
        /// Its words.
        said: String,
    },
    /// There is a password and no TLS to send it under.
    #[error("{server} offers no TLS, and the password is not sent in clear")]
    NoSecureLogin {
        /// Who.
        server: String,
    },
    /// There is a login and the relay offers no mechanism that we could use for it.
    #[error("no usable login mechanism; the relay offers: {offered}")]
    AuthUnavailable {
        /// The relay's AUTH keywords, or `none`.
        offered: String,
    },
    /// The relay wants a token, and there is none.
    #[error("no access token: {0}")]
    Token(TokenError),
    /// Our own side failed: the content could not be read, or the spool not be written.
    #[error("our own trouble: {detail}")]
    Ours {
        /// What went wrong.
        detail: String,
    },
    /// We stopped before it was this recipient's turn, or the relay takes no more
    /// recipients in one transaction (RFC 9422).
    #[error("not sent yet")]
    Cancelled,
}

/// Whom a failed attempt is about, as far as the error's kind tells; a refusal's words
/// may tell more ([`classify`](crate::outcome)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The relay as a whole: nothing was said about this message.
    Relay,
    /// The same attempt may go better later.
    Transient,
    /// It will not.
    Permanent,
    /// Nothing was tried: our own trouble, or we were stopping.
    Untried,
}

/// The enhanced status of a reply with a space behind it, if it has one.
fn status_of(reply: &Reply) -> String {
    let status = reply.enhanced.map(|it| format!("{it} "));
    let missing = status.filter(|it| !reply.text().starts_with(it.as_str()));
    missing.unwrap_or_default()
}

impl RelayError {
    /// Where in the dialogue it happened.
    pub fn stage(&self) -> Stage {
        match self {
            Self::NoServer { .. } | Self::Dns { .. } => Stage::Dns,
            Self::Connect { .. } | Self::Cancelled => Stage::Connect,
            Self::Tls { .. } => Stage::Tls,
            Self::NoSecureLogin { .. } => Stage::StartTls,
            Self::AuthUnavailable { .. } | Self::Token(_) => Stage::Auth,
            Self::Refused { stage, .. }
            | Self::Garbage { stage, .. }
            | Self::Silent { stage, .. }
            | Self::Closed { stage, .. } => *stage,
            Self::Unsupported { .. } | Self::TooLarge { .. } | Self::NotHere { .. } => Stage::Mail,
            Self::Chunking { .. } => Stage::FinalDot,
            Self::Ours { .. } => Stage::Content,
        }
    }

    /// Whether a server said for good that the login is not right.
    pub fn refuses_login(&self) -> bool {
        matches!(
            self,
            Self::Refused { stage: Stage::Auth, reply } if reply.is_permanent()
        )
    }

    /// Whom it is about, and whether the same attempt can go better later.
    ///
    /// Before MAIL nothing was said about any message, so whatever goes wrong there is
    /// the relay's own trouble. After it, anything but a clear "never" is transient: a
    /// wrong retry costs a connection, a wrong bounce costs a message.
    pub fn severity(&self) -> Severity {
        match self {
            Self::NoServer { .. }
            | Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::NoSecureLogin { .. }
            | Self::AuthUnavailable { .. }
            | Self::Token(_) => Severity::Relay,
            Self::Refused { stage, .. }
            | Self::Garbage { stage, .. }
            | Self::Silent { stage, .. }
            | Self::Closed { stage, .. }
                if *stage < Stage::Mail =>
            {
                Severity::Relay
            }
            Self::Refused { reply, .. } if reply.is_permanent() => Severity::Permanent,
            Self::Unsupported { .. } | Self::TooLarge { .. } => Severity::Permanent,
            Self::Refused { .. }
            | Self::Garbage { .. }
            | Self::Silent { .. }
            | Self::Closed { .. }
            | Self::NotHere { .. }
            | Self::Chunking { .. } => Severity::Transient,
            Self::Ours { .. } | Self::Cancelled => Severity::Untried,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(stage: Stage, code: u16) -> RelayError {
        RelayError::Refused {
            stage,
            reply: Reply {
                code,
                enhanced: None,
                lines: vec!["no".into()],
            },
        }
    }

    #[test]
    fn the_words_of_a_refusal_keep_their_status() {
        let error = RelayError::Refused {
            stage: Stage::Auth,
            reply: Reply {
                code: 535,
                enhanced: "5.7.8".parse().ok(),
                lines: vec!["bad credentials".into()],
            },
        };
        assert_eq!(
            error.to_string(),
            "refused at auth: 535 5.7.8 bad credentials"
        );
        let bare = refused(Stage::Auth, 535).to_string();
        assert_eq!(bare, "refused at auth: 535 no");
    }

    #[test]
    fn only_a_clear_never_is_permanent() {
        assert_eq!(
            refused(Stage::Recipient, 550).severity(),
            Severity::Permanent
        );
        assert_eq!(
            refused(Stage::Recipient, 450).severity(),
            Severity::Transient
        );
        assert_eq!(
            refused(Stage::Recipient, 354).severity(),
            Severity::Transient
        );
        assert_eq!(refused(Stage::Auth, 535).severity(), Severity::Relay);
        assert_eq!(refused(Stage::Greeting, 554).severity(), Severity::Relay);
    }
}
