//! What the delivery task answers to those who ask for a test message or show a token.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::mail::QueueId;
use crate::verify::{Outcome, RESEND_PAUSE};

/// A test message is on its way.
pub struct Verifying {
    /// To whom.
    pub sender: String,
    /// Its queue id.
    pub id: QueueId,
    /// Told when it was tried.
    pub ended: oneshot::Receiver<Outcome>,
}

/// Why no test message goes out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTest {
    /// The configuration does not ask for one.
    #[error(
        "the relay {0} needs no verification; write verify = true in [relays.{0}] to demand it"
    )]
    NotWanted(String),
    /// It is confirmed.
    #[error("the relay {relay} was confirmed on {} by {by}; nothing is left to do", shown(.at))]
    Confirmed {
        /// The relay.
        relay: String,
        /// When.
        at: Timestamp,
        /// By whom.
        by: String,
    },
    /// The last one left just now.
    #[error(
        "the last test message left {} ago for {sender}: a mail may take a few minutes; \
         the next one may go in {}, there are {} between two",
        span(.since), span(.left), span(&RESEND_PAUSE)
    )]
    Pause {
        /// To whom.
        sender: String,
        /// Since it left.
        since: Duration,
        /// Until the next may.
        left: Duration,
    },
    /// An administrator paused the relay.
    #[error(
        "the relay {relay} was paused by {by}, so nothing leaves; run: penstock relay resume {relay}"
    )]
    Paused {
        /// The relay.
        relay: String,
        /// By whom.
        by: String,
    },
    /// It could not be written or kept.
    #[error("{0}")]
    Trouble(String),
}

/// A moment for people.
fn shown(at: &Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// `4 min 20 s`.
fn span(length: &Duration) -> String {
    let seconds = length.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

/// The relay behind a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// Its name.
    pub relay: String,
    /// Its servers as configured.
    pub servers: Vec<String>,
    /// The account's own address.
    pub sender: String,
    /// Since when it is active; none: it is not yet, the question was what the token is for.
    pub at: Option<Timestamp>,
}

/// Why a token confirms nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// Nobody knows it.
    #[error("this token is not known; copy it whole from the newest test message")]
    Unknown,
    /// It was used.
    #[error("the relay {0} is confirmed already; nothing is left to do")]
    Used(String),
    /// It is too old.
    #[error(
        "this token has expired: it was good for 7 days; run penstock relay verify {0} for a new one"
    )]
    Expired(String),
    /// The relay is not there any more, or needs no confirmation.
    #[error("the relay {0} waits for no confirmation any more")]
    NotWanted(String),
    /// The relay is another one by now.
    #[error(
        "the relay {0} was changed after this token was sent; use the one in its newest test message, \
         or run penstock relay verify {0}"
    )]
    Outdated(String),
    /// It could not be written down.
    #[error("{0}")]
    Trouble(String),
}
