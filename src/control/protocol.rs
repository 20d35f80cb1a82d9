//! What is said on the control socket.
//!
//! Every line is one JSON object. After the greeting, every object has exactly one
//! member, whose name says what it is:
//!
//! ```text
//! daemon  {"penstock":"0.1.0","protocol":1}
//! client  {"queue":{"filter":{"relay":"own"},"limit":2}}
//! daemon  {"message":{"id":"1k9xw3q5g0000","from":"jan@uwdomein.nl",...}}
//! daemon  {"message":{"id":"1k9xw3q5g0001","from":"piet@uwdomein.nl",...}}
//! daemon  {"done":{}}
//! ```
//!
//! Names of members are `snake_case` (they are fields to a program), values that choose
//! among few are `kebab-case` (they are words to a person, the same as on the command
//! line). Times are RFC 3339 in UTC, sizes end in `_bytes`, lengths of time in `_seconds`.
//! A member that has no value is `null`, never missing. Requests refuse unknown members;
//! answers may gain members within one protocol version, so readers ignore those they do
//! not know. What `penstock --json` prints is the inner object, unchanged.
//!
//! This module imports nothing of ours: addresses, ids and words are plain text here.

mod filter;
mod message;
mod metrics;
mod relay;
mod status;

use serde::{Deserialize, Serialize};

pub use filter::{Candidate, Filter, MessageState};
pub use message::{
    Action, ChangeReport, ChangeRequest, Content, HoldDetail, MailingReport, MessageDetail,
    MessageSummary, RecipientDetail, Said, TraceEvent, TraceRequest,
};
pub use metrics::{HintCount, Latency, MetricsReport, RelayTraffic};
pub use relay::{
    Dialogue, LimitsReport, LoggedIn, LoginPrompt, OAuthReport, RelayState, RelayStatus,
    RelayTestReport, RouteReport, Side, UserShare, VerificationReport, VerificationState,
    WindowReport,
};
pub use status::{
    AlarmReport, HintReport, ListenerStatus, QueueCounts, ReloadReport, SpoolReport, StatusReport,
    TopSnapshot, Traffic, Verified,
};

/// Changes whenever an old program could misunderstand a new one.
pub const PROTOCOL_VERSION: u32 = 1;

/// Octets of a request line, its end included; a longer one is answered with an error.
pub const REQUEST_MAXIMUM: usize = 64 * 1024;

/// The first line, said by the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The version of the daemon, `0.1.0`.
    pub penstock: String,
    /// [`PROTOCOL_VERSION`] of the daemon.
    pub protocol: u32,
}

impl Greeting {
    /// The greeting of this program.
    pub fn ours() -> Self {
        Self {
            penstock: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL_VERSION,
        }
    }
}

/// The second line, said by the client: what it wants.
///
/// Beside each verb stands what is streamed before `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How things are: one [`Item::Status`].
    Status {},
    /// What waits, first in first out: [`Item::Message`]s.
    Queue {
        /// Which.
        #[serde(default, skip_serializing_if = "Filter::is_empty")]
        filter: Filter,
        /// Only messages after this id: the place where an earlier page ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// At most so many; none: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// Everything about one waiting message: one [`Item::Detail`].
    Show {
        /// Its id.
        id: String,
    },
    /// Its content: [`Item::Content`] pieces in order.
    Cat {
        /// Its id.
        id: String,
    },
    /// What happened to a message or for an address, oldest first: [`Item::Event`]s.
    Trace(TraceRequest),
    /// Hold, release, retry, reroute, delete or fail what waits: one [`Item::Change`].
    Change(ChangeRequest),
    /// What is used and what is left of a relay's limits: [`Item::Limits`].
    Limits {
        /// Which relay; none: every one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay: Option<String>,
    },
    /// The mailings that wait or ended within the hour: [`Item::Mailing`]s.
    Mailings {
        /// Those of one relay; none: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay: Option<String>,
    },
    /// Everything that is counted, for a monitoring system: one [`Item::Metrics`].
    Metrics {},
    /// The present picture again and again, until the client goes: [`Item::Top`]s.
    Top {
        /// Seconds between two pictures, at least 1.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        interval_seconds: u64,
    },
    /// The relays: [`Item::Relay`]s.
    RelayList {
        /// One of them; none: every one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay: Option<String>,
    },
    /// Release nothing more to a relay: one [`Item::Relay`].
    RelayPause {
        /// Its name.
        relay: String,
        /// Why, for whoever asks later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// Try a paused relay at once: one [`Item::Relay`].
    RelayResume {
        /// Its name.
        relay: String,
    },
    /// Connect, secure and log in, and send no mail: [`Item::Dialogue`]s as they happen,
    /// then one [`Item::RelayTest`].
    RelayTest {
        /// Its name.
        relay: String,
    },
    /// Send the verification message again: [`Item::Dialogue`]s, then one [`Item::RelayTest`].
    RelayVerify {
        /// Its name.
        relay: String,
    },
    /// Log in for a relay that takes tokens: one [`Item::Login`] if a person has to do
    /// something, then one [`Item::LoggedIn`], and mostly one [`Item::RelayTest`].
    RelayLogin {
        /// Its name.
        relay: String,
        /// A refresh token that was got elsewhere; it is never logged. None: begin a login.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refresh_token: Option<String>,
    },
    /// Confirm a relay with the token of its verification message: one [`Item::Verified`].
    RelayConfirm {
        /// The token; it is never logged.
        token: String,
        /// Only tell what the token is for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        dry_run: bool,
    },
    /// Which relay a From address gets and which rule says so: one [`Item::Route`].
    Route {
        /// The From address.
        address: String,
    },
    /// What will hurt delivery: [`Item::Hint`]s.
    Hints {
        /// Those about one relay; none: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay: Option<String>,
    },
    /// Read the configuration again: one [`Item::Reload`], or an error of kind
    /// [`FailureKind::BadConfiguration`] and the old one stays.
    Reload {},
}

fn one() -> u64 {
    1
}

fn is_one(it: &u64) -> bool {
    *it == 1
}

impl Request {
    /// The verb, for the log.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Status {} => "status",
            Self::Queue { .. } => "queue",
            Self::Show { .. } => "show",
            Self::Cat { .. } => "cat",
            Self::Trace(_) => "trace",
            Self::Change(change) => change.action.verb(),
            Self::Limits { .. } => "limits",
            Self::Mailings { .. } => "mailings",
            Self::Metrics {} => "metrics",
            Self::Top { .. } => "top",
            Self::RelayList { .. } => "relay-list",
            Self::RelayPause { .. } => "relay-pause",
            Self::RelayResume { .. } => "relay-resume",
            Self::RelayTest { .. } => "relay-test",
            Self::RelayVerify { .. } => "relay-verify",
            Self::RelayLogin { .. } => "relay-login",
            Self::RelayConfirm { .. } => "relay-confirm",
            Self::Route { .. } => "route",
            Self::Hints { .. } => "hints",
            Self::Reload {} => "reload",
        }
    }

    /// Whether it changes something, or shows what only its owner should see: who asked
    /// is then logged.
    pub fn is_logged(&self) -> bool {
        match self {
            Self::Change(change) => !change.dry_run,
            Self::RelayConfirm { dry_run, .. } => !dry_run,
            Self::Show { .. }
            | Self::Cat { .. }
            | Self::Trace(_)
            | Self::RelayPause { .. }
            | Self::RelayResume { .. }
            | Self::RelayTest { .. }
            | Self::RelayVerify { .. }
            | Self::RelayLogin { .. }
            | Self::Reload {} => true,
            Self::Status {}
            | Self::Queue { .. }
            | Self::Limits { .. }
            | Self::Mailings { .. }
            | Self::Metrics {}
            | Self::Top { .. }
            | Self::RelayList { .. }
            | Self::Route { .. }
            | Self::Hints { .. } => false,
        }
    }
}

/// One piece of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// To `status`.
    Status(Box<StatusReport>),
    /// To `queue`.
    Message(Box<MessageSummary>),
    /// To `show`.
    Detail(Box<MessageDetail>),
    /// To `cat`.
    Content(Content),
    /// To `trace`.
    Event(Box<TraceEvent>),
    /// To `change`.
    Change(ChangeReport),
    /// To `limits`.
    Limits(Box<LimitsReport>),
    /// To `mailings`.
    Mailing(Box<MailingReport>),
    /// To `metrics`.
    Metrics(Box<MetricsReport>),
    /// To `top`.
    Top(Box<TopSnapshot>),
    /// To `relay-list`, `relay-pause` and `relay-resume`.
    Relay(Box<RelayStatus>),
    /// To `relay-test` and `relay-verify`, while they run.
    Dialogue(Dialogue),
    /// To `relay-login`, when a person has to do something.
    Login(LoginPrompt),
    /// To `relay-login`, when it is done.
    LoggedIn(LoggedIn),
    /// To `relay-test`, `relay-verify` and `relay-login`, at their end.
    RelayTest(RelayTestReport),
    /// To `relay-confirm`.
    Verified(Verified),
    /// To `route`.
    Route(RouteReport),
    /// To `hints`.
    Hint(Box<HintReport>),
    /// To `reload`.
    Reload(ReloadReport),
}

/// A line of the daemon after the greeting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The last line of an answer that is complete.
    Done {},
    /// The last line of an answer that is not.
    Error(Failure),
    /// A piece of the answer.
    #[serde(untagged)]
    Item(Item),
}

/// Why a request was not (or not wholly) answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// For people: what is wrong and, where we know it, what to do.
    pub message: String,
}

impl Failure {
    /// A failure from its kind and its words.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The request makes no sense.
    BadRequest,
    /// What it names does not exist.
    NotFound,
    /// It was tried, or refused for a reason.
    Failed,
    /// Not now: too many connections, shutting down.
    TryAgain,
    /// The configuration on disk is wrong; the one in use stays.
    BadConfiguration,
}

#[cfg(test)]
mod tests;
